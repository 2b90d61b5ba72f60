package webhook

import (
	"context"
	"encoding/json"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// Services is the defaulter of Services.
type Services struct{}

// Path is where the API server finds it; the chart says it too.
const Path = "/mutate-v1-service"

// Add registers the webhook with the manager's server.
func Add(mgr ctrl.Manager) error {
	if err := ctrl.NewWebhookManagedBy(mgr, &corev1.Service{}).WithDefaulter(Services{}).WithDefaulterCustomPath(Path).Complete(); err != nil {
		return fmt.Errorf("adding webhook for services: %w", err)
	}
	return nil
}

// Default implements admission.Defaulter.
func (Services) Default(ctx context.Context, service *corev1.Service) error {
	req, err := admission.RequestFromContext(ctx)
	if err != nil {
		return fmt.Errorf("reading admission request: %w", err)
	}
	var old *corev1.Service
	if req.Operation == admissionv1.Update {
		old = &corev1.Service{}
		if err := json.Unmarshal(req.OldObject.Raw, old); err != nil {
			return fmt.Errorf("decoding old service: %w", err)
		}
	}
	return injector.Admit(service, old, byController(req))
}

// byController says whether our controller makes the write, by its field manager's name. Who gives that name falsely
// could as well have taken the label off: it is no border of rights.
func byController(req admission.Request) bool {
	var options metav1.PatchOptions // UpdateOptions and CreateOptions have the same field
	if err := json.Unmarshal(req.Options.Raw, &options); err != nil {
		return false
	}
	return options.FieldManager == injector.ManagedBy
}
