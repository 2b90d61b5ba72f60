// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestJudgeService(t *testing.T) {
	tests := map[string]struct {
		change func(*corev1.Service)
		want   string // part of the reason; empty means injected
	}{
		"plain":         {func(*corev1.Service) {}, ""},
		"node port":     {func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, ""},
		"kube-system":   {func(s *corev1.Service) { s.Namespace = "kube-system" }, "kube-system"},
		"own namespace": {func(s *corev1.Service) { s.Namespace = "ours" }, "ours"},
		"own object":    {func(s *corev1.Service) { s.Labels[ManagedByLabel] = ManagedBy }, "marks what scale-to-zero makes"},
		"external name": {func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, "ExternalName"},
		"no selector":   {noSelector, "no selector"},
		"headless":      {func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }, "headless"},
		"local traffic": {
			func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal) },
			"internalTrafficPolicy",
		},
		"udp": {func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP }, "http (80) is UDP"},
		"sctp, unnamed": {func(s *corev1.Service) {
			s.Spec.Ports = []corev1.ServicePort{{Port: 80}, {Port: 90, Protocol: corev1.ProtocolSCTP}}
		}, "90 is SCTP"},
		"no ports":    {func(s *corev1.Service) { s.Spec.Ports = nil }, "no ports"},
		"many ports":  {func(s *corev1.Service) { s.Spec.Ports = slices.Repeat(s.Spec.Ports, MaxPorts) }, ""},
		"too many":    {func(s *corev1.Service) { s.Spec.Ports = slices.Repeat(s.Spec.Ports, MaxPorts+1) }, "51 ports, and at most 50"},
		"intercepted": {sentinel, ""},
	}
	notForIngresses := []string{"headless", "internalTrafficPolicy"}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := JudgeService(service(tc.change), "ours", false, nil)
			if (tc.want == "") != (got == "") || !strings.Contains(string(got), tc.want) {
				t.Errorf("got %q, want something with %q", got, tc.want)
			}
			want := got
			if slices.Contains(notForIngresses, tc.want) {
				want = ""
			}
			if got := JudgeService(service(tc.change), "ours", true, nil); got != want {
				t.Errorf("for its Ingresses only: got %q, want %q", got, want)
			}
		})
	}
}

func workload(kind, name string, labels map[string]string) Workload {
	return Workload{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name, UID: "w-" + "uid"}, APIVersion: "apps/v1", Kind: kind,
		PodLabels: labels, Replicas: 1,
	}
}

func TestFindWorkload(t *testing.T) {
	web := map[string]string{"app": "web", "tier": "front"}
	named := DefaultSettings()
	named.Workload = "StatefulSet/db"
	tests := map[string]struct {
		settings   Settings
		candidates []Workload
		want       string // Kind/name, or empty
		skip       string
	}{
		"the only one": {candidates: []Workload{workload("Deployment", "web", web), workload("Deployment", "other",
			map[string]string{"app": "x"})}, want: "Deployment/web"},
		"none": {skip: "no Deployment or StatefulSet has pods that its selector app=web matches"},
		"two": {
			candidates: []Workload{workload("Deployment", "web", web), workload("StatefulSet", "web", web)},
			skip:       "Deployment/web and StatefulSet/web; name one with annotation scale-to-zero/workload",
		},
		"a DaemonSet": {
			candidates: []Workload{workload("DaemonSet", "agent", web)},
			skip:       "DaemonSet/agent, which cannot be scaled to zero",
		},
		"one and a DaemonSet": {
			candidates: []Workload{workload("Deployment", "web", web), workload("DaemonSet", "agent", web)},
			skip:       "DaemonSet/agent and Deployment/web",
		},
		"named": {settings: named, candidates: []Workload{workload("Deployment", "web", web), workload("StatefulSet", "db",
			nil)}, want: "StatefulSet/db"},
		"named, but not there": {settings: named, candidates: []Workload{workload("Deployment", "db", web)}, skip: "there is no StatefulSet/db"},
		"labels differ":        {candidates: []Workload{workload("Deployment", "web", map[string]string{"app": "web2"})}, skip: "no Deployment"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, skip := FindWorkload(service(sentinel), tc.settings, tc.candidates)
			if tc.skip == "" && skip == "" && got.Ref().String() == tc.want {
				return
			}
			if tc.skip == "" || !strings.Contains(string(skip), tc.skip) {
				t.Errorf("got %s, skip %q; want %q, skip with %q", got.Ref(), skip, tc.want, tc.skip)
			}
		})
	}
}

// The Skip of a headless Service says which Ingress to label, or what kind of object.
func TestJudgeHeadless(t *testing.T) {
	headless := service(func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone })
	for want, ingresses := range map[string][]string{
		"If visitors come through an Ingress, label the Ingress instead; otherwise label a Service with a cluster IP": nil,
		"kubectl label ingress -n apps front scale-to-zero=true":                                                      {"front"},
		"kubectl label ingress -n apps back front scale-to-zero=true":                                                 {"back", "front"},
	} {
		if got := JudgeService(headless, "ours", false, ingresses); !strings.Contains(string(got), want) {
			t.Errorf("got %q, want something with %q", got, want)
		}
	}
}

func TestSiblings(t *testing.T) {
	w := workload("Deployment", "web", map[string]string{"app": "web", "tier": "front"})
	named := func(name string, selector map[string]string, change ...func(*corev1.Service)) corev1.Service {
		s := service(change...)
		s.Name, s.Spec.Selector = name, selector
		return *s
	}
	web := map[string]string{"app": "web"}
	all := []corev1.Service{
		named("web", web), named("web-headless", web, unlabelled), named("other", map[string]string{"app": "other"}, unlabelled),
		named("api", web, unlabelled), named("web-direct", web, unlabelled, func(s *corev1.Service) { s.Labels[ManagedByLabel] = ManagedBy }),
	}
	got := Siblings(w, all, func(s *corev1.Service) bool { return s.Labels[OptInLabel] == "true" })
	if !slices.Equal(got, []string{"api", "web-headless"}) {
		t.Errorf("got %v", got)
	}
}

func TestParseWorkload(t *testing.T) {
	for s, want := range map[string]bool{
		"Deployment/web": true, "StatefulSet/db": true, "Rollout.argoproj.io/web": true,
		"": false, "web": false, "Deployment/": false, "/web": false, "DaemonSet/web": false, "Rollout/web": false,
		"Deployment/a/b": false, "Rollout.argoproj.io/": false, "Rollout.argo_proj/web": false, "deployment/web": false,
	} {
		kind, name, ok := ParseWorkload(s)
		if ok != want {
			t.Errorf("%q: %v %q %t", s, kind, name, ok)
		}
		if ref := (api.Workload{APIVersion: kind.WithVersion("v1").GroupVersion().String(), Kind: kind.Kind, Name: name}); ok &&
			ref.String() != s {
			t.Errorf("%q is written as %q", s, ref)
		}
	}
}
