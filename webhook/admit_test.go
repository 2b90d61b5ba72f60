// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

func raw(t *testing.T, o any) []byte {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// request returns the write of an object. old is nil on create.
func request(t *testing.T, manager string, object, old runtime.Object) admission.Request {
	t.Helper()
	req := admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw(t, object)},
		Options: runtime.RawExtension{Raw: raw(t, metav1.PatchOptions{FieldManager: manager})},
	}}
	if old != nil {
		req.Operation, req.OldObject.Raw = admissionv1.Update, raw(t, old)
	}
	return req
}

func service(labels, annotations map[string]string) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web", Labels: labels, Annotations: annotations},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func TestServiceAnswers(t *testing.T) {
	in := map[string]string{"scale-to-zero": "true"}
	setting := map[string]string{"scale-to-zero/cooldown": "1m"}
	taken := map[string]string{"scale-to-zero/cooldown": "1m", "scale-to-zero/route": "ready"}
	bad := map[string]string{"scale-to-zero/enabled": "yes"}
	for name, tc := range map[string]struct {
		manager              string
		object, old          *corev1.Service
		denied, warned, path string // parts of the reason, of the warning and of a patch's path
	}{
		"opted in":                       {object: service(in, setting)},
		"a setting without an opt-in":    {object: service(nil, setting), warned: "scale-to-zero/cooldown: no effect"},
		"opted in by its namespace":      {object: service(nil, setting), old: service(nil, taken), path: "/"},
		"by our controller":              {manager: "scale-to-zero", object: service(nil, setting), old: service(nil, setting)},
		"asked for by our controller":    {manager: "scale-to-zero", object: service(in, taken), old: service(in, nil), path: "/spec/selector"},
		"an annotation that says nought": {object: service(nil, bad), denied: `annotation scale-to-zero/enabled: "yes"`},
		"of our controller, denied not":  {manager: "scale-to-zero", object: service(nil, bad), old: service(nil, bad)},
	} {
		t.Run(name, func(t *testing.T) {
			var old runtime.Object
			if tc.old != nil {
				old = tc.old
			}
			got := admitter[*corev1.Service]{clientgoscheme.Scheme, admitService}.Handle(t.Context(), request(t, tc.manager, tc.object, old))
			if got.Allowed != (tc.denied == "") || !got.Allowed && !strings.Contains(got.Result.Message, tc.denied) {
				t.Errorf("allowed: %t, %v", got.Allowed, got.Result)
			}
			if warnings := strings.Join(got.Warnings, "\n"); (warnings == "") != (tc.warned == "") || !strings.Contains(warnings, tc.warned) {
				t.Errorf("warnings %q, want something with %q", warnings, tc.warned)
			}
			patched := false
			for _, p := range got.Patches {
				patched = patched || strings.HasPrefix(p.Path, tc.path)
			}
			if patched != (tc.path != "") {
				t.Errorf("patches %v, want one of %q", got.Patches, tc.path)
			}
		})
	}
}

func TestOtherAnswers(t *testing.T) {
	ingress := &networkingv1.Ingress{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "Ingress"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "apps", Name: "front", Labels: map[string]string{"scale-to-zero": "true"},
			Annotations: map[string]string{
				"nginx.ingress.kubernetes.io/auth-url": "http://web/auth",
			},
		},
		Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web"}}},
	}
	got := admitter[*networkingv1.Ingress]{clientgoscheme.Scheme, admitIngress}.Handle(t.Context(), request(t, "", ingress, nil))
	if !got.Allowed || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "auth-url seems to name backend Service web") {
		t.Errorf("allowed: %t, warnings %q", got.Allowed, got.Warnings)
	}
	namespace := &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: "apps", Annotations: map[string]string{"scale-to-zero/internal-services": "true"}},
	}
	got = admitter[*corev1.Namespace]{clientgoscheme.Scheme, admitNamespace}.Handle(t.Context(), request(t, "", namespace, nil))
	if !got.Allowed || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "no effect unless the Namespace is opted in") {
		t.Errorf("allowed: %t, warnings %q", got.Allowed, got.Warnings)
	}
}
