// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// kubernetes plays the controllers of Deployments and EndpointSlices in one namespace at a time: every pod of a
// Deployment is ready at once.
type kubernetes struct{ client client.Client }

func addKubernetes(mgr ctrl.Manager) error {
	namespace := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: o.GetNamespace()}}}
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("kubernetes").
		Watches(&appsv1.Deployment{}, namespace).
		Watches(&corev1.Service{}, namespace).
		Complete(kubernetes{mgr.GetClient()})
}

func (k kubernetes) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var deployments appsv1.DeploymentList
	var services corev1.ServiceList
	for _, list := range []client.ObjectList{&deployments, &services} {
		if err := k.client.List(ctx, list, client.InNamespace(req.Name)); err != nil {
			return ctrl.Result{}, err
		}
	}
	for i := range deployments.Items {
		d := &deployments.Items[i]
		n := *d.Spec.Replicas
		want := appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
		if d.Status.ObservedGeneration == want.ObservedGeneration && d.Status.ReadyReplicas == n {
			continue
		}
		d.Status = want
		if err := k.client.Status().Update(ctx, d); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
	}
	for i := range services.Items {
		if s := &services.Items[i]; len(s.Spec.Selector) > 0 {
			if err := k.slice(ctx, s, deployments.Items); err != nil {
				return ctrl.Result{}, err
			}
		}
	}
	return ctrl.Result{}, nil
}

// slice lists the pod that the Service's selector matches, if any.
func (k kubernetes) slice(ctx context.Context, service *corev1.Service, deployments []appsv1.Deployment) error {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	s.Namespace, s.Name = service.Namespace, service.Name+"-native"
	_, err := controllerutil.CreateOrUpdate(ctx, k.client, s, func() error {
		s.Labels = map[string]string{
			discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io", discoveryv1.LabelServiceName: service.Name,
		}
		for name, value := range maps.All(service.Labels) {
			if _, own := s.Labels[name]; !own {
				s.Labels[name] = value
			}
		}
		s.Endpoints, s.Ports = nil, nil
		for _, p := range service.Spec.Ports {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: new(int32(8080)), Protocol: &p.Protocol})
		}
		for _, d := range deployments {
			if *d.Spec.Replicas > 0 && labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(d.Spec.Template.Labels)) {
				s.Endpoints = []discoveryv1.Endpoint{{
					Addresses: []string{"198.18.0.9"}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
					TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: service.Namespace, Name: "pod-1"},
				}}
			}
		}
		return nil
	})
	return client.IgnoreAlreadyExists(err)
}
