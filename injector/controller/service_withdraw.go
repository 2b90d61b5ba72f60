// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// nativeSlices is who keeps a Service's own EndpointSlices.
const nativeSlices = "endpointslice-controller.k8s.io"

// aliasLinger is how long an alias Service stays when no Ingress names it any more: ingress controllers take their time
// to notice, some look at Ingresses and at EndpointSlices at different moments.
const aliasLinger = 30 * time.Second

// withdraw gives an entrance back, in the order that loses no request: the route slices say that they retire (so that the
// WorkloadReconciler restores the workload), and only when Kubernetes lists a ready pod behind the Service do they go. An
// empty result says that nothing of ours is left of it.
//
// When the verdict takes the other entrance, that one keeps the workload, and nothing is restored.
func (r *ServiceReconciler) withdraw(ctx context.Context, service *corev1.Service, e *entrance, ingresses backing, v verdict) (ctrl.Result, error) {
	if !r.present(service, *e, ingresses) {
		return ctrl.Result{}, nil
	}
	if err := r.retire(ctx, service, e, v); err != nil {
		return ctrl.Result{}, err
	}
	if !e.alias {
		// The sentinel has to go for Kubernetes to list the pods again; until it does, the route slices serve alone.
		if turned, err := r.turnBack(ctx, service, *e, ingresses); err != nil || !turned {
			return ctrl.Result{RequeueAfter: 5 * retry}, err
		}
	}
	found, err := r.workloads.get(ctx, service.Namespace, e.routes.Workload.String())
	if err != nil {
		return ctrl.Result{}, err
	}
	if found.forbidden != "" && v.take != takeService {
		// It may be asleep: without the route slices nothing would ever wake it.
		r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonRestoring, "Not given back yet: "+string(found.forbidden), service)
		return ctrl.Result{RequeueAfter: kindRetry}, nil
	}
	back, err := r.podsBackOrGone(ctx, service, e, found, v)
	if err != nil {
		return ctrl.Result{}, err
	}
	if !back && !r.late(*e) && len(e.slices) > 0 {
		return ctrl.Result{RequeueAfter: retry}, nil
	}
	if e.alias {
		if turned, err := r.turnBack(ctx, service, *e, ingresses); err != nil || !turned {
			return ctrl.Result{RequeueAfter: 5 * retry}, err
		}
		if left, err := r.linger(ctx, e); err != nil || left > 0 {
			return ctrl.Result{RequeueAfter: left}, err
		}
	}
	deleted, err := r.remove(ctx, service, e)
	if deleted && v.take == takeNothing {
		r.tellRestored(ctx, service, *e, found, back, v.skip)
	}
	return ctrl.Result{}, err
}

// present says whether anything of ours is left of the entrance.
func (r *ServiceReconciler) present(service *corev1.Service, e entrance, ingresses backing) bool {
	if len(e.slices) > 0 {
		return true
	}
	if e.alias {
		return e.front != nil || len(ingresses.led) > 0
	}
	return service.Annotations[injector.RouteAnnotation] != "" || injector.Intercepted(service)
}

// retire marks the route slices with the time, once.
func (r *ServiceReconciler) retire(ctx context.Context, service *corev1.Service, e *entrance, v verdict) error {
	for i := range e.slices {
		if e.slices[i].Annotations[injector.SinceAnnotation] != "" && (e.routes.Retiring || v.take != takeNothing) {
			continue
		}
		e.routes.Retiring = v.take == takeNothing
		annotation, err := e.routes.Encode()
		if err != nil {
			return err
		}
		s := e.slices[i].DeepCopy()
		s.Annotations[api.RoutesAnnotation] = annotation
		s.Annotations[injector.SinceAnnotation] = r.Now().UTC().Format(time.RFC3339)
		if err := r.client.Update(ctx, s); err != nil {
			return fmt.Errorf("retiring route slice %s: %w", client.ObjectKeyFromObject(s), err)
		}
		e.slices[i] = *s
		log.FromContext(ctx).Info("Giving a Service back", "service", client.ObjectKeyFromObject(service), "slice", s.Name, "reason", string(v.skip))
	}
	return nil
}

// turnBack asks admission to have traffic go where the author of the Service, or of its Ingresses, sends it.
func (r *ServiceReconciler) turnBack(ctx context.Context, service *corev1.Service, e entrance, ingresses backing) (bool, error) {
	turned := true
	if e.alias {
		for _, i := range ingresses.led {
			if err := r.lead(ctx, i, service.Name, ""); err != nil {
				return false, err
			}
		}
		after, err := backingOf(ctx, r.live, service)
		if err != nil {
			return false, err
		}
		turned = len(after.led) == 0
	} else if service.Annotations[injector.RouteAnnotation] != "" || injector.Intercepted(service) {
		if err := r.annotate(ctx, service, injector.RouteAnnotation, ""); err != nil {
			return false, err
		}
		turned = !injector.Intercepted(service)
	}
	if !turned {
		r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonRestoring,
			"scale-to-zero's admission webhook did not answer, so traffic still goes through the interceptors; trying again", service)
	}
	return turned, nil
}

// podsBack says whether Kubernetes lists a ready pod again behind the Service and behind the direct Service, and the
// workload is given back, or there is no workload left that could have a pod, or the Service has become one that has none,
// or leads to the interceptors itself.
func (r *ServiceReconciler) podsBack(ctx context.Context, service *corev1.Service, w workload, v verdict) (bool, error) {
	if v.take == takeService || w.object == nil || len(injector.OriginalSelector(service)) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName {
		return true, nil
	}
	native, err := r.nativeSlices(ctx, service)
	if err != nil || !injector.HasReadyEndpoint(native) {
		return false, err
	}
	// What interceptors hold goes to the pods of the direct Service, whose slices are written at another moment.
	direct, err := r.directSlices(ctx, service)
	if err != nil || len(direct) > 0 && !injector.HasReadyEndpoint(direct) {
		return false, err
	}
	if injector.Remembered(w.Annotations) == 0 || v.take != takeNothing {
		return true, nil
	}
	return routedElsewhere(ctx, r.client, service, w)
}

// nativeSlices returns the slices that Kubernetes keeps for the Service itself.
func (r *ServiceReconciler) nativeSlices(ctx context.Context, service *corev1.Service) ([]discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	if err := r.live.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingLabels{
		discoveryv1.LabelServiceName: service.Name, discoveryv1.LabelManagedBy: nativeSlices,
	}); err != nil {
		return nil, fmt.Errorf("listing endpoint slices of %s: %w", client.ObjectKeyFromObject(service), err)
	}
	return list.Items, nil
}

// routedElsewhere says whether another Service keeps the workload.
func routedElsewhere(ctx context.Context, c client.Reader, service *corev1.Service, w workload) (bool, error) {
	var list discoveryv1.EndpointSliceList
	if err := c.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingLabels{api.RoleLabel: api.RoleRoute}); err != nil {
		return false, fmt.Errorf("listing route slices of namespace %s: %w", service.Namespace, err)
	}
	for _, s := range list.Items {
		routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
		if err == nil && routes.Service != service.Name && !routes.Retiring && routes.Workload.String() == w.Ref().String() {
			return true, nil
		}
	}
	return false, nil
}

// late says whether pods have not come back for as long as a request may be held: there is nothing left to hold for.
func (r *ServiceReconciler) late(e entrance) bool {
	for _, s := range e.slices {
		since, err := time.Parse(time.RFC3339, s.Annotations[injector.SinceAnnotation])
		if err == nil && r.Now().Sub(since) > time.Duration(e.routes.HoldTimeout) {
			return true
		}
	}
	return false
}

// linger says for how long yet an alias Service has to stay.
func (r *ServiceReconciler) linger(ctx context.Context, e *entrance) (time.Duration, error) {
	if e.front == nil {
		return 0, nil
	}
	since, err := time.Parse(time.RFC3339, e.front.Annotations[injector.UnusedAnnotation])
	if err != nil {
		return r.AliasLinger, r.annotate(ctx, e.front, injector.UnusedAnnotation, r.Now().UTC().Format(time.RFC3339))
	}
	// The annotation has whole seconds.
	return max(0, r.AliasLinger+time.Second-r.Now().Sub(since)), nil
}

// remove deletes what is ours of an entrance, and says whether there was a route slice yet. An interceptor sees the route
// slice go before the direct Service's slices, since they are deleted in this order and seen in one watch; it serves what
// is left with the pods that it knew.
func (r *ServiceReconciler) remove(ctx context.Context, service *corev1.Service, e *entrance) (bool, error) {
	deleted := false
	for i := range e.slices {
		one, err := r.delete(ctx, &e.slices[i])
		if err != nil {
			return false, err
		}
		deleted = deleted || one
	}
	name := service.Name
	if e.alias {
		name = injector.AliasServiceName(service.Name)
		if e.front != nil {
			if _, err := r.delete(ctx, e.front); err != nil {
				return false, err
			}
		}
	}
	r.freePorts(client.ObjectKey{Namespace: service.Namespace, Name: name})
	r.stories.forget(client.ObjectKeyFromObject(service))
	return deleted, nil
}

func (r *ServiceReconciler) tellRestored(ctx context.Context, service *corev1.Service, e entrance, w workload, back bool, skip injector.Skip) {
	why := "it is no longer opted in"
	if skip != "" {
		why = string(skip)
	}
	note := fmt.Sprintf("Requests to Service %s go to its pods again, without scale-to-zero: %s", service.Name, why)
	switch {
	case w.object == nil:
		note += "; the workload is gone"
	case !back:
		note += fmt.Sprintf("; %s has been asked for %s, and none has become ready yet", e.routes.Workload, replicasText(w.Replicas))
	default:
		note += fmt.Sprintf("; %s has %s", e.routes.Workload, replicasText(w.Replicas))
	}
	r.stories.tell(ctx, corev1.EventTypeNormal, reasonRestored, note, service, w.object)
}

func replicasText(n int32) string {
	if n == 1 {
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", n)
}
