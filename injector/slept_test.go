// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSlept(t *testing.T) {
	const keep = "To keep it there: do this"
	for name, tc := range map[string]struct {
		slept Slept
		want  string
	}{
		"idle":            {Slept{By: "keda", Ready: true, For: "5m12s"}, "Deployment/web has gone to zero replicas after 5m12s awake: no requests for 5m; the next one wakes it"},
		"idle, by us":     {Slept{By: "scale-to-zero", Ready: true, For: "5m12s"}, "Deployment/web has gone to zero replicas after 5m12s awake: no requests for 5m; the next one wakes it"},
		"found awake":     {Slept{By: "keda", Ready: true}, "Deployment/web has gone to zero replicas: no requests for 5m; the next one wakes it"},
		"never ready":     {Slept{By: "keda", For: "10m4s"}, "Deployment/web has gone to zero replicas: it never became ready in 10m4s, and nobody waits for it. The next request starts it again"},
		"found not ready": {Slept{By: "keda"}, "Deployment/web has gone to zero replicas: no pod was ready, and nobody waits for one. The next request starts it again"},
		"by hand":         {Slept{By: "kubectl", Ready: true, For: "5s"}, "Deployment/web was scaled to zero by kubectl, not for lack of requests. The next request wakes it. " + keep},
		"by hand, unready": {Slept{By: "argocd-controller", For: "5s"},
			"Deployment/web was scaled to zero by argocd-controller, not for lack of requests. The next request wakes it. " + keep},
		"paused": {Slept{By: "keda", Paused: "ScaledObject web is paused", Ready: true, For: "5s"},
			"Deployment/web has gone to zero replicas: ScaledObject web is paused. Requests get 503 until that ends"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.slept.Cooldown, tc.slept.ToKeep = 5*time.Minute, keep
			if got := tc.slept.Note("Deployment/web"); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestScaledBy(t *testing.T) {
	at := func(s int64) *metav1.Time { return new(metav1.Unix(s, 0)) }
	entry := func(manager string, when int64, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: manager, Time: at(when), FieldsV1: &metav1.FieldsV1{Raw: []byte(fields)}}
	}
	const replicas, others = `{"f:spec":{"f:replicas":{},"f:template":{}}}`, `{"f:metadata":{"f:labels":{"f:f:replicas":{}}},"f:spec":{"f:template":{}}}`
	status := entry("kube-controller-manager", 9, `{"f:status":{"f:replicas":{}}}`)
	status.Subresource = "status"
	byScale := entry("kubectl", 5, replicas)
	byScale.Subresource = "scale"
	for name, tc := range map[string]struct {
		fields []metav1.ManagedFieldsEntry
		want   string
		byHand bool
	}{
		"nobody":                {[]metav1.ManagedFieldsEntry{status, entry("helm", 1, others)}, "", false},
		"a chart":               {[]metav1.ManagedFieldsEntry{status, entry("helm", 1, replicas)}, "helm", true},
		"who came last":         {[]metav1.ManagedFieldsEntry{entry("kubectl-edit", 3, replicas), entry("helm", 1, replicas)}, "kubectl-edit", true},
		"the scale subresource": {[]metav1.ManagedFieldsEntry{entry("helm", 9, replicas), byScale}, "kubectl", true},
		"KEDA":                  {[]metav1.ManagedFieldsEntry{{Manager: "keda", Subresource: "scale"}}, "keda", false},
		"we":                    {[]metav1.ManagedFieldsEntry{{Manager: ManagedBy, Subresource: "scale"}}, ManagedBy, false},
	} {
		t.Run(name, func(t *testing.T) {
			kept := KeepReplicaOwners(tc.fields)
			for _, fields := range [][]metav1.ManagedFieldsEntry{tc.fields, kept, KeepReplicaOwners(kept)} {
				if got := ScaledBy(fields); got != tc.want || ScaledByHand(fields) != tc.byHand {
					t.Errorf("by %q, by hand %v", got, ScaledByHand(fields))
				}
			}
			for _, m := range kept {
				if m.FieldsV1 != nil && len(m.FieldsV1.Raw) > 40 {
					t.Errorf("keeps %s", m.FieldsV1.Raw)
				}
			}
		})
	}
}
