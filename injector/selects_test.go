// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A workload that a Service names is put to sleep only if the Service selects its pods.
func TestNamedWorkloadHasSelectedPods(t *testing.T) {
	built := func(labels map[string]string) func(*Workload) {
		return func(w *Workload) { w.PodLabels, w.Template = labels, &corev1.PodTemplateSpec{} }
	}
	for name, tc := range map[string]struct {
		change  func(*Workload)
		owns    bool
		routed  string // UID in the route slices
		injects bool
	}{
		"a Deployment":                            {change: built(map[string]string{"app": "web", "tier": "front"}), injects: true},
		"an unrelated Deployment":                 {change: built(map[string]string{"app": "worker"})},
		"one without labels":                      {change: built(nil)},
		"one with a part of them":                 {change: built(map[string]string{"tier": "front"})},
		"an unrelated one that has been routed":   {change: built(map[string]string{"app": "worker"}), routed: "w-uid", owns: true},
		"one whose selector says more":            {change: func(w *Workload) { built(nil)(w); w.Selector = "app=web" }},
		"a custom resource with a template":       {change: func(w *Workload) { w.PodLabels = map[string]string{"app": "web"} }, injects: true},
		"a custom resource with a selector":       {change: func(w *Workload) { w.Selector = "app=web,tier in (front)" }, injects: true},
		"a selector of several values":            {change: func(w *Workload) { w.Selector = "app in (web,worker)" }},
		"a selector that excludes":                {change: func(w *Workload) { w.Selector = "app!=web" }},
		"a selector of a key":                     {change: func(w *Workload) { w.Selector = "app" }},
		"a selector that cannot be read":          {change: func(w *Workload) { w.Selector = "app=(" }},
		"another selector":                        {change: func(w *Workload) { w.Selector = "app=worker" }},
		"a custom resource that nothing is known": {change: func(*Workload) {}},
		"one that owns a selected pod":            {change: func(*Workload) {}, owns: true, injects: true},
		"one that has been routed":                {change: func(*Workload) {}, routed: "w-uid", injects: true},
		"one of that name that has been routed":   {change: func(*Workload) {}, routed: "w-other"},
	} {
		t.Run(name, func(t *testing.T) {
			w := workload("Deployment", "db", nil)
			tc.change(&w)
			o := Observation{Service: service(func(s *corev1.Service) { s.Annotations = map[string]string{Prefix + "workload": "Deployment/db"} })}
			if tc.routed != "" {
				routes := NewRoutes(o.Service, DefaultSettings(), w, map[string]int32{"http": 10000})
				routes.Workload.UID = tc.routed
				o.Slices = RouteSlices(o.Service, o.Service, routes, DefaultSettings(), Published{})
			}
			skip := o.otherPods(&Target{Workload: w, Owns: tc.owns})
			if tc.injects != (skip == "") {
				t.Fatalf("skip %q, want injection %t", skip, tc.injects)
			}
			if !tc.injects && !strings.Contains(string(skip), "Deployment/db, whose pods its selector app=web does not match") {
				t.Errorf("skip %q", skip)
			}
		})
	}
}

// The Service of a sleeping app that is made to name another workload is restored, with the reason.
func TestRenamedWorkloadIsRestored(t *testing.T) {
	w := newWorld(t)
	w.run()
	if !Intercepted(w.service) {
		t.Fatal("it is not injected")
	}
	w.service.Annotations[Prefix+"workload"] = "Deployment/web"
	w.workload.PodLabels = map[string]string{"app": "worker"}
	w.workload.Template = &corev1.PodTemplateSpec{}
	w.run()
	if Intercepted(w.service) {
		t.Error("the Service is still injected")
	}
	if all := strings.Join(w.events, "\n"); !strings.Contains(all, "does not match: requests would not wake it") {
		t.Errorf("events:\n%s", all)
	}
}
