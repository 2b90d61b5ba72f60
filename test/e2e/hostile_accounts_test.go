// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestStolenAccounts: who has stolen a token of ours can neither stop apps with an interceptor's, nor change what runs with any.
func TestStolenAccounts(t *testing.T) {
	t.Parallel()
	s := &stack{t: t, ns: newNamespace(t)}
	s.awakeApp("web")
	s.redirected("web")
	s.answers("web", "before") // it is awake: waking it would be allowed
	kubectl(t, "create", "secret", "generic", "-n", s.ns, "private")
	meta := metav1.ObjectMeta{Namespace: s.ns, Name: "web"}
	merge := func(patch string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(patch)) }
	scale := func(n int32) func(client.Client) error {
		return func(c client.Client) error {
			return c.SubResource("scale").Update(t.Context(), &appsv1.Deployment{ObjectMeta: meta},
				client.WithSubResourceBody(&autoscalingv1.Scale{ObjectMeta: meta, Spec: autoscalingv1.ScaleSpec{Replicas: n}}))
		}
	}
	patchScale := func(patch string) func(client.Client) error {
		return func(c client.Client) error {
			return c.SubResource("scale").Patch(t.Context(), &appsv1.Deployment{ObjectMeta: meta}, merge(patch))
		}
	}
	patch := func(o client.Object, patch string) func(client.Client) error {
		return func(c client.Client) error { return c.Patch(t.Context(), o, merge(patch)) }
	}
	read := func(c client.Client) error {
		return c.Get(t.Context(), client.ObjectKey{Namespace: s.ns, Name: "private"}, &corev1.Secret{})
	}
	template := patch(&appsv1.Deployment{ObjectMeta: meta},
		`{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"registry.example.com/evil"}]}}}}`)
	elsewhere := patch(&corev1.Service{ObjectMeta: meta}, `{"spec":{"selector":{"app":"evil"}}}`)
	remove := func(c client.Client) error { return c.Delete(t.Context(), &corev1.Service{ObjectMeta: meta}) }
	hooks := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: release}}
	for name, tc := range map[string]struct {
		account string
		attempt func(client.Client) error
	}{
		"interceptor: stop an app":                {"interceptor", patchScale(`{"spec":{"replicas":0}}`)},
		"interceptor: many replicas of an app":    {"interceptor", patchScale(`{"spec":{"replicas":100}}`)},
		"interceptor: update a scale":             {"interceptor", scale(0)},
		"interceptor: change an image":            {"interceptor", template},
		"interceptor: lead a Service elsewhere":   {"interceptor", elsewhere},
		"interceptor: read a Secret":              {"interceptor", read},
		"controller: change an image":             {"controller", template},
		"controller: lead a Service elsewhere":    {"controller", elsewhere},
		"controller: read a Secret":               {"controller", read},
		"controller: replicas without a scale":    {"controller", patch(&appsv1.Deployment{ObjectMeta: meta}, `{"spec":{"replicas":0}}`)},
		"controller: delete a Service":            {"controller", remove},
		"controller: every request to a webhook":  {"controller", patch(hooks, `{"webhooks":[]}`)},
		"controller: a label of a user's Service": {"controller", patch(&corev1.Service{ObjectMeta: meta}, `{"metadata":{"labels":{"a":"b"}}}`)},
		"restore: change an image":                {"restore", template},
		"restore: stop an app":                    {"restore", patchScale(`{"spec":{"replicas":0}}`)},
		"restore: delete a Service":               {"restore", remove},
	} {
		t.Run(name, func(t *testing.T) {
			thief := clientOf(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: release, Name: release + "-" + tc.account}})
			if err := tc.attempt(thief); !refused(err) {
				t.Errorf("want a refusal, got %v", err)
			}
		})
	}
	s.answers("web", "after all attempts")
}
