// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// The paths of the webhooks. The chart configures the API server with them.
const (
	ServicePath   = "/mutate-v1-service"
	IngressPath   = "/mutate-networking-v1-ingress"
	NamespacePath = "/mutate-v1-namespace"
	WorkloadPath  = "/mutate-apps-v1-workload"
	// ScaledObjectPath only warns, and changes nothing.
	ScaledObjectPath = "/mutate-keda-v1alpha1-scaledobject"
)

// Add registers the webhooks with the manager's server.
func Add(mgr ctrl.Manager, o Options) error {
	server, bounds := mgr.GetWebhookServer(), newBounds(o)
	server.Register(ServicePath, bounds.of(&admission.Webhook{Handler: admitter[*corev1.Service]{mgr.GetScheme(), admitService}}))
	server.Register(IngressPath, bounds.of(&admission.Webhook{Handler: admitter[*networkingv1.Ingress]{mgr.GetScheme(), admitIngress}}))
	server.Register(NamespacePath, bounds.of(&admission.Webhook{Handler: admitter[*corev1.Namespace]{mgr.GetScheme(), admitNamespace}}))
	server.Register(WorkloadPath, bounds.of(&admission.Webhook{Handler: replicaGuard{}}))
	server.Register(ScaledObjectPath, bounds.of(&admission.Webhook{Handler: scaledObjects{}}))
	return nil
}

// admitter is a defaulter that can warn: admit changes object in place, and returns warnings for its author.
type admitter[T runtime.Object] struct {
	scheme *runtime.Scheme
	admit  func(object T, req admission.Request) (warnings []string, err error)
}

// Handle implements admission.Handler.
func (a admitter[T]) Handle(ctx context.Context, req admission.Request) admission.Response {
	var warnings []string
	hook := admission.WithDefaulter(a.scheme, defaulter[T](func(object T, req admission.Request) (err error) {
		warnings, err = a.admit(object, req)
		return err
	}))
	return hook.Handler.Handle(ctx, req).WithWarnings(warnings...)
}

// defaulter turns a function that changes object in place into an admission.Defaulter.
type defaulter[T runtime.Object] func(object T, req admission.Request) error

// Default implements admission.Defaulter.
func (admit defaulter[T]) Default(ctx context.Context, object T) error {
	req, err := admission.RequestFromContext(ctx)
	if err != nil {
		return fmt.Errorf("reading admission request: %w", err)
	}
	return admit(object, req)
}

func admitService(service *corev1.Service, req admission.Request) ([]string, error) {
	old, err := oldObject(req, &corev1.Service{})
	if err != nil {
		return nil, err
	}
	if err := injector.Admit(service, old, byController(req)); err != nil || byController(req) {
		return nil, err
	}
	return injector.Warnings("Service", service, injector.TakenOver(service, old)), nil
}

func admitIngress(ingress *networkingv1.Ingress, req admission.Request) ([]string, error) {
	old, err := oldObject(req, &networkingv1.Ingress{})
	if err != nil {
		return nil, err
	}
	if err := injector.AdmitIngress(ingress, old, byController(req)); err != nil || byController(req) {
		return nil, err
	}
	return injector.IngressWarnings(ingress), nil
}

func admitNamespace(namespace *corev1.Namespace, _ admission.Request) ([]string, error) {
	if err := injector.AdmitNamespace(namespace); err != nil {
		return nil, err
	}
	return injector.Warnings("Namespace", namespace, false), nil
}

// oldObject decodes the object in the API server into object. It returns nil on create.
func oldObject[T any](req admission.Request, object *T) (*T, error) {
	if req.Operation != admissionv1.Update {
		return nil, nil
	}
	if err := json.Unmarshal(req.OldObject.Raw, object); err != nil {
		return nil, fmt.Errorf("decoding the object as it was: %w", err)
	}
	return object, nil
}

// byController reports whether our controller is the writer, according to the field manager's name. The name can be forged, but
// whoever can forge it can also remove the label: this is not a security boundary.
func byController(req admission.Request) bool { return fieldManager(req) == injector.ManagedBy }

func fieldManager(req admission.Request) string {
	var options metav1.PatchOptions // UpdateOptions and CreateOptions have the same field
	if err := json.Unmarshal(req.Options.Raw, &options); err != nil {
		return ""
	}
	return options.FieldManager
}
