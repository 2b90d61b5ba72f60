// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// await looks again, soon at first, and ever more rarely up to longest. What a Service lacks for longer than everything
// takes to come up is told.
func (r *ServiceReconciler) await(ctx context.Context, service *corev1.Service, lacking injector.Skip, longest time.Duration) ctrl.Result {
	log.FromContext(ctx).V(1).Info("Not taken over yet", "reason", lacking)
	waited := r.stories.waited(client.ObjectKeyFromObject(service), string(lacking))
	if waited < settling {
		return ctrl.Result{RequeueAfter: retry}
	}
	r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonSkipped, "Not taken over: "+string(lacking), service)
	return ctrl.Result{RequeueAfter: wait.Jitter(min(max(waited/2, patience), longest), 0.2)}
}

// lacking says why the interceptors do not take the front's traffic. ready are those of any IP family, and missing is the
// family in which none of them is published.
func lacking(routes api.Routes, ready []injector.Interceptor, front *corev1.Service, missing corev1.IPFamily) injector.Skip {
	if len(ready) == 0 {
		return "no interceptor of scale-to-zero is ready"
	}
	if family := injector.MissingFamily(ready, front.Spec.IPFamilies); family != "" {
		return injector.Skip(fmt.Sprintf("it has an %s address, and no interceptor of scale-to-zero that is ready has one", family))
	}
	return injector.Skip(fmt.Sprintf("no interceptor answers scale-to-zero's controller on %s over %s yet; does a network policy forbid it?", listensText(routes), missing))
}

// podsListed says what is missing until Kubernetes has listed the workload's pods behind the direct Service, so that the
// interceptors know them before they get the first request.
func (r *ServiceReconciler) podsListed(ctx context.Context, service *corev1.Service, w injector.Workload) (injector.Skip, error) {
	direct, err := r.directSlices(ctx, service)
	switch {
	case err != nil:
		return "", err
	case len(direct) == 0:
		return injector.Skip(fmt.Sprintf("Kubernetes has not made an EndpointSlice for Service %s yet", injector.DirectServiceName(service.Name))), nil
	case injector.HasReadyEndpoint(direct):
		return "", nil
	case w.ReadyReplicas > 0:
		return injector.Skip(fmt.Sprintf("%s has ready pods, but none is behind this Service", w.Ref())), nil
	case !service.Spec.PublishNotReadyAddresses:
		return "", nil
	}
	native, err := r.nativeSlices(ctx, service)
	if err != nil || !injector.HasReadyEndpoint(native) {
		return "", err
	}
	return injector.Skip(fmt.Sprintf("Kubernetes has not listed the pods of Service %s yet, which take requests before they are ready", injector.DirectServiceName(service.Name))), nil
}
