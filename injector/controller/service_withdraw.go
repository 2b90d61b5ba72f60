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

// withdraw gives the Service back, in the order that loses no request: the route slices say that they retire (so that
// the WorkloadReconciler restores the workload), the sentinel goes (so that Kubernetes lists the pods again), and only
// when it has listed one do the route slices go, and the rest with them.
func (r *ServiceReconciler) withdraw(ctx context.Context, service *corev1.Service, own owned, v verdict) (ctrl.Result, error) {
	_, annotated := service.Annotations[injector.RouteAnnotation]
	if own.empty() && !annotated && !injector.Intercepted(service) {
		if v.skip != "" {
			r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonSkipped, "Not taken over: "+string(v.skip), service)
		}
		return ctrl.Result{}, nil
	}
	if err := r.retire(ctx, service, own, v); err != nil {
		return ctrl.Result{}, err
	}
	if annotated || injector.Intercepted(service) {
		if err := r.annotate(ctx, service, "null"); err != nil {
			return ctrl.Result{}, err
		}
		if injector.Intercepted(service) {
			r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonRestoring,
				"scale-to-zero's admission webhook did not answer, so traffic still goes through the interceptors; trying again", service)
			return ctrl.Result{RequeueAfter: 5 * retry}, nil
		}
	}
	object, w, err := getWorkload(ctx, r.client, client.ObjectKey{Namespace: service.Namespace, Name: own.routes.Workload.Name}, own.routes.Workload.Kind)
	if err != nil {
		return ctrl.Result{}, err
	}
	back, err := r.podsBack(ctx, service, object)
	if err != nil {
		return ctrl.Result{}, err
	}
	late := r.late(own)
	if !back && !late && len(own.slices) > 0 {
		return ctrl.Result{RequeueAfter: retry}, nil
	}
	deleted, err := r.deleteOwned(ctx, own)
	if err != nil {
		return ctrl.Result{}, err
	}
	r.freePorts(client.ObjectKeyFromObject(service))
	r.stories.forget(client.ObjectKeyFromObject(service))
	if deleted {
		r.tellRestored(ctx, service, object, w, back, v.skip)
	}
	return ctrl.Result{}, nil
}

// deleteOwned deletes what is ours around a Service, and says whether there was a route slice yet. An interceptor sees the
// route slice go before the direct Service's slices, since they are deleted in this order and seen in one watch; it
// serves what is left with the pods that it knew.
func (r *ServiceReconciler) deleteOwned(ctx context.Context, own owned) (bool, error) {
	deleted := false
	for i := range own.slices {
		one, err := r.delete(ctx, &own.slices[i])
		if err != nil {
			return false, err
		}
		deleted = deleted || one
	}
	if own.direct != nil {
		if _, err := r.delete(ctx, own.direct); err != nil {
			return false, err
		}
	}
	return deleted, nil
}

// retire marks the route slices, once.
func (r *ServiceReconciler) retire(ctx context.Context, service *corev1.Service, own owned, v verdict) error {
	if len(own.slices) == 0 || own.routes.Retiring {
		return nil
	}
	own.routes.Retiring = true
	annotation, err := own.routes.Encode()
	if err != nil {
		return err
	}
	for i := range own.slices {
		s := own.slices[i].DeepCopy()
		s.Annotations = map[string]string{api.RoutesAnnotation: annotation, injector.SinceAnnotation: r.Now().UTC().Format(time.RFC3339)}
		if err := r.client.Update(ctx, s); err != nil {
			return fmt.Errorf("retiring route slice %s: %w", client.ObjectKeyFromObject(s), err)
		}
		own.slices[i] = *s
	}
	log.FromContext(ctx).Info("Giving a Service back", "service", client.ObjectKeyFromObject(service), "reason", string(v.skip))
	return nil
}

// podsBack says whether Kubernetes lists a ready pod again behind the Service and behind the direct Service, or there is no workload
// left that could have one, or the Service has become one that has none.
func (r *ServiceReconciler) podsBack(ctx context.Context, service *corev1.Service, workload client.Object) (bool, error) {
	if workload == nil || len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName {
		return true, nil
	}
	var list discoveryv1.EndpointSliceList
	if err := r.live.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingLabels{
		discoveryv1.LabelServiceName: service.Name, discoveryv1.LabelManagedBy: nativeSlices,
	}); err != nil {
		return false, fmt.Errorf("listing endpoint slices of %s: %w", client.ObjectKeyFromObject(service), err)
	}
	if !injector.HasReadyEndpoint(list.Items) {
		return false, nil
	}
	// What interceptors hold goes to the pods of the direct Service, whose slices are written at another moment.
	var direct discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &direct, client.InNamespace(service.Namespace), client.MatchingLabels{
		api.RoleLabel: api.RoleDirect, injector.ServiceLabel: service.Name,
	}); err != nil {
		return false, fmt.Errorf("listing direct slices of %s: %w", client.ObjectKeyFromObject(service), err)
	}
	return len(direct.Items) == 0 || injector.HasReadyEndpoint(direct.Items), nil
}

// late says whether pods have not come back for as long as a request may be held: there is nothing left to hold for.
func (r *ServiceReconciler) late(own owned) bool {
	for _, s := range own.slices {
		since, err := time.Parse(time.RFC3339, s.Annotations[injector.SinceAnnotation])
		if err == nil && r.Now().Sub(since) > time.Duration(own.routes.HoldTimeout) {
			return true
		}
	}
	return false
}

func (r *ServiceReconciler) tellRestored(ctx context.Context, service *corev1.Service, object client.Object, w injector.Workload, back bool, skip injector.Skip) {
	why := "it is no longer opted in"
	if skip != "" {
		why = string(skip)
	}
	note := fmt.Sprintf("Requests to Service %s go to its pods again, without scale-to-zero: %s", service.Name, why)
	switch {
	case object == nil:
		note += "; the workload is gone"
	case !back:
		note += fmt.Sprintf("; %s has been asked for %d replicas, and none has become ready yet", w.Ref(), w.Replicas)
	default:
		note += fmt.Sprintf("; %s has %d replicas", w.Ref(), w.Replicas)
	}
	r.stories.tell(ctx, corev1.EventTypeNormal, reasonRestored, note, service, object)
}
