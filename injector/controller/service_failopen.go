// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// failsOpen says whether the entrance leads to the pods for want of an interceptor.
func (e entrance) failsOpen() bool {
	for i := range e.slices {
		if e.slices[i].Annotations[injector.FailOpenAnnotation] != "" {
			return true
		}
	}
	return false
}

// failOpen leads a taken-over entrance to the app's own pods while no interceptor is ready: our outage is not to be
// theirs. The WorkloadReconciler keeps such an app awake. One that sleeps stays asleep: all waking at once could take a
// small cluster down.
func (r *ServiceReconciler) failOpen(ctx context.Context, service *corev1.Service, routes api.Routes, e entrance, v verdict) error {
	direct, err := r.directSlices(ctx, service)
	if err != nil {
		return err
	}
	open, err := injector.RouteSlices(e.front, service, routes, v.settings, injector.Published{})
	if err != nil {
		return err
	}
	note := fmt.Sprintf("No interceptor of scale-to-zero is ready; requests go to the pods of %s directly, which is kept awake until one is", v.workload.Ref())
	if !injector.FailOpen(open, direct) {
		// What the slices list is of no use, but of no harm either: somebody may still be draining there.
		note = fmt.Sprintf("No interceptor of scale-to-zero is ready; %s stays asleep, and requests to it fail until one is", v.workload.Ref())
	} else if err := r.applySlices(ctx, open, e); err != nil {
		return err
	}
	r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonNoInterceptor, note, service)
	return nil
}

func (r *ServiceReconciler) directSlices(ctx context.Context, service *corev1.Service) ([]discoveryv1.EndpointSlice, error) {
	return directSlices(ctx, r.client, service)
}

// directSlices returns the slices of the direct Service, which Kubernetes keeps.
func directSlices(ctx context.Context, c client.Reader, service *corev1.Service) ([]discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	if err := c.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingLabels{
		api.RoleLabel: api.RoleDirect, injector.ServiceLabel: service.Name,
	}); err != nil {
		return nil, fmt.Errorf("listing direct slices of %s: %w", client.ObjectKeyFromObject(service), err)
	}
	return list.Items, nil
}

// warnOfFamily tells that a taken-over Service is without interceptors in one of its IP families, if that lasts: the slices
// of the families are not written at the same moment.
func (r *ServiceReconciler) warnOfFamily(ctx context.Context, service *corev1.Service, missing corev1.IPFamily) ctrl.Result {
	note := fmt.Sprintf("No interceptor of scale-to-zero can be reached over %s; requests over it fail until one can, others go on", missing)
	if r.stories.waited(client.ObjectKeyFromObject(service), note) < settling {
		return ctrl.Result{RequeueAfter: retry}
	}
	r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonNoInterceptor, note, service)
	return ctrl.Result{RequeueAfter: patience}
}

// warn tells what the Service's owner may not expect of a take-over that went well: that interceptors are back, and which
// other Services lead to the same pods past them.
func (r *ServiceReconciler) warn(ctx context.Context, service *corev1.Service, e entrance, ingresses backing, v verdict) error {
	if r.stories.ended(client.ObjectKeyFromObject(service), reasonNoInterceptor) || e.failsOpen() {
		r.stories.tell(ctx, corev1.EventTypeNormal, reasonInjected,
			fmt.Sprintf("Requests to Service %s go through scale-to-zero again: an interceptor is ready", service.Name), service, v.object)
	}
	if e.alias {
		r.warnOfAnnotations(ctx, service, e, ingresses)
	}
	around, err := r.allSurroundings(ctx, v.namespace, ingresses)
	if err != nil {
		return err
	}
	siblings := injector.Siblings(v.workload, around.Services, func(s *corev1.Service) bool {
		taken, _ := optIn(s, v.namespace, backing{all: ingresses.all}, around)
		return taken == takeService || s.Name == service.Name
	})
	if len(siblings) == 0 {
		return nil
	}
	r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonSiblings, fmt.Sprintf(
		"%s also serves Service %s, where nobody counts or wakes: while it sleeps, their clients find no pod. Label them %s=true too, or send their clients here",
		v.workload.Ref(), strings.Join(siblings, ", "), injector.OptInLabel), service)
	return nil
}

// warnOfAnnotations warns, once, of annotations of opted-in Ingresses that seem to name the Service and still do so now that
// the Ingress reaches it by its alias.
func (r *ServiceReconciler) warnOfAnnotations(ctx context.Context, service *corev1.Service, e entrance, ingresses backing) {
	var notes []string
	var objects []client.Object
	for _, i := range ingresses.optedIn {
		if keys := injector.NamedElsewhere(i, service.Name); len(keys) > 0 {
			notes = append(notes, fmt.Sprintf("annotation %s of Ingress %s", strings.Join(keys, ", "), i.Name))
			objects = append(objects, i)
		}
	}
	if len(notes) == 0 {
		return
	}
	r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonAnnotation, fmt.Sprintf(
		"%s: it seems to name Service %s, which the Ingress now reaches by %s. It is left as it is. If it should follow, opt in the Service instead of the Ingress: kubectl label service -n %s %s %s=true",
		strings.Join(notes, "; "), service.Name, e.front.Name, service.Namespace, service.Name, injector.OptInLabel), service, objects...)
}
