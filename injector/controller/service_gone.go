// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// podsBackOrGone is podsBack. If the workload is gone, the interceptors are told that no pod comes back.
func (r *ServiceReconciler) podsBackOrGone(ctx context.Context, service *corev1.Service, e *entrance, w workload, v verdict) (bool, error) {
	if err := r.giveUp(ctx, e, w, v); err != nil {
		return false, err
	}
	return r.podsBack(ctx, service, w, v)
}

// giveUp has the interceptors fail the requests that they hold for a workload that does not exist any more. The route
// slices may stay for a while yet: an Ingress still sends traffic to the alias Service.
func (r *ServiceReconciler) giveUp(ctx context.Context, e *entrance, w workload, v verdict) error {
	if v.take != takeNothing || w.object != nil || w.forbidden != "" || e.routes.Gone != "" || e.routes.Workload.Name == "" {
		return nil
	}
	e.routes.Gone = e.routes.Workload.String() + " does not exist any more"
	annotation, err := e.routes.Encode()
	if err != nil {
		return err
	}
	for i := range e.slices {
		s := e.slices[i].DeepCopy()
		s.Annotations[api.RoutesAnnotation] = annotation
		if err := r.client.Update(ctx, s); err != nil {
			return fmt.Errorf("writing to route slice %s that its workload is gone: %w", client.ObjectKeyFromObject(s), err)
		}
		e.slices[i] = *s
	}
	return nil
}

// removeOrphans deletes the route slices of a Service that was deleted. Kubernetes would do it too, in its own time, but
// clients are held until then.
func (r *ServiceReconciler) removeOrphans(ctx context.Context, service client.ObjectKey) error {
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingLabels{
		api.RoleLabel: api.RoleRoute, injector.ServiceLabel: service.Name,
	}); err != nil {
		return fmt.Errorf("listing route slices of %s: %w", service, err)
	}
	for i := range list.Items {
		if _, err := r.delete(ctx, &list.Items[i]); err != nil {
			return err
		}
	}
	return nil
}
