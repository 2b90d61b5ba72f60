// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func service(change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "apps", Name: "web", UID: "uid-1",
			Labels: map[string]string{OptInLabel: "true", "app": "web"},
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.0.0.7", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Selector: map[string]string{"app": "web"},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func label(value string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Labels[OptInLabel] = value }
}

func unlabelled(s *corev1.Service) { delete(s.Labels, OptInLabel) }

func annotated(key, value string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[key] = value
	}
}

func enabled(value string) func(*corev1.Service) { return annotated(EnabledAnnotation, value) }

func sentinel(s *corev1.Service) { s.Spec.Selector[SentinelKey] = SentinelValue }

func noSelector(s *corev1.Service) { s.Spec.Selector = nil }

// TestAdmitTable tests the rows of Admit's table, with each kind of writer.
func TestAdmitTable(t *testing.T) {
	ready := annotated(RedirectAnnotation, RedirectReady)
	kinds := map[string]func(*corev1.Service){
		"opted in": label("true"), "annotated": func(s *corev1.Service) { unlabelled(s); enabled("true")(s) },
		"opted out": label("false"), "neither": unlabelled, "wrong": label("yes"),
		"no pods": func(s *corev1.Service) { label("true")(s); noSelector(s) },
	}
	for oldName, oldKind := range kinds {
		for newName, newKind := range kinds {
			for _, byController := range []bool{false, true} {
				for _, had := range []bool{false, true} {
					for _, asks := range []bool{false, true} {
						name := fmt.Sprintf("%s, had %t, then %s, asks %t, by controller %t", oldName, had, newName, asks, byController)
						old, now := service(oldKind), service(newKind)
						if had {
							ready(old)
						}
						if asks {
							ready(now)
						}
						err := Admit(now, old, byController)
						if denied := newName == "wrong" && !byController; denied != (err != nil) {
							t.Fatalf("%s: %v", name, err)
						} else if denied {
							continue
						}
						wasIn := oldName == "opted in" || oldName == "annotated" || oldName == "no pods"
						isIn := newName == "opted in" || newName == "annotated"
						want := had
						switch {
						case newName == "no pods", newName == "opted out", wasIn && !isIn:
							want = false
						case byController:
							want = asks
						}
						if got := now.Annotations[RedirectAnnotation] == RedirectReady; got != want || Intercepted(now) != want {
							t.Errorf("%s: annotation %t, sentinel %t; want %t", name, got, Intercepted(now), want)
						}
					}
				}
			}
		}
	}
	for name, kind := range kinds {
		created := service(kind, ready)
		if err := Admit(created, nil, true); err != nil || created.Annotations[RedirectAnnotation] != "" || Intercepted(created) {
			t.Errorf("%s, created: %v, %v", name, created.Annotations, err)
		}
	}
}

func TestAdmit(t *testing.T) {
	ready := annotated(RedirectAnnotation, RedirectReady)
	tests := map[string]struct {
		service, old *corev1.Service
		byController bool
		want         *corev1.Service
	}{
		"create is left alone": {
			service: service(), want: service(),
		},
		"create as a copy of an intercepted one starts without a route": {
			service: service(ready, sentinel), want: service(annotated("x", "y"), func(s *corev1.Service) { delete(s.Annotations, "x") }),
		},
		"the controller asks for the sentinel": {
			service: service(ready), old: service(), byController: true, want: service(ready, sentinel),
		},
		"nobody else can": {
			service: service(ready), old: service(), want: service(annotated("x", "y"), func(s *corev1.Service) { delete(s.Annotations, "x") }),
		},
		"a replace without annotation and sentinel keeps both": {
			service: service(), old: service(ready, sentinel), want: service(ready, sentinel),
		},
		"a new selector keeps the sentinel": {
			service: service(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web2"} }),
			old:     service(ready, sentinel),
			want:    service(ready, func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web2"} }, sentinel),
		},
		"the label goes, and with it route and sentinel": {
			service: service(unlabelled, ready, sentinel), old: service(ready, sentinel),
			want: service(unlabelled, annotated("x", "y"), func(s *corev1.Service) { delete(s.Annotations, "x") }),
		},
		"the label says false": {
			service: service(label("false"), ready, sentinel), old: service(ready, sentinel),
			want: service(label("false"), annotated("x", "y"), func(s *corev1.Service) { delete(s.Annotations, "x") }),
		},
		"its namespace opts it in, and the controller asks for the sentinel": {
			service: service(unlabelled, ready), old: service(unlabelled), byController: true, want: service(unlabelled, ready, sentinel),
		},
		"its namespace opts it in, and somebody replaces it": {
			service: service(unlabelled), old: service(unlabelled, ready, sentinel), want: service(unlabelled, ready, sentinel),
		},
		"its namespace opts it in, and it opts out": {
			service: service(label("false"), ready, sentinel), old: service(unlabelled, ready, sentinel),
			want: service(label("false"), annotated("x", "y"), func(s *corev1.Service) { delete(s.Annotations, "x") }),
		},
		"the annotation goes, and with it route and sentinel": {
			service: service(unlabelled, annotated("x", "y"), ready, sentinel), old: service(unlabelled, annotated("x", "y"), enabled("true"),
				ready, sentinel),
			want: service(unlabelled, annotated("x", "y")),
		},
		"the annotation says false": {
			service: service(unlabelled, enabled("false"), ready, sentinel), old: service(unlabelled, enabled("true"), ready, sentinel),
			want: service(unlabelled, enabled("false")),
		},
		"its namespace opts it in, and its annotation opts it out": {
			service: service(unlabelled, enabled("false"), ready, sentinel), old: service(unlabelled, ready, sentinel),
			want: service(unlabelled, enabled("false")),
		},
		"the label goes, and the annotation keeps it": {
			service: service(unlabelled, enabled("true")), old: service(enabled("true"), ready, sentinel),
			want: service(unlabelled, enabled("true"), ready, sentinel),
		},
		"the annotation goes, and the label keeps it": {
			service: service(), old: service(enabled("true"), ready, sentinel), want: service(ready, sentinel),
		},
		"the controller withdraws a labelled one": {
			service: service(sentinel), old: service(ready, sentinel), byController: true, want: service(),
		},
		"a sentinel without a route goes": {
			service: service(sentinel), old: service(), want: service(),
		},
		"a selector that is taken out takes the route along": {
			service: service(ready, noSelector), old: service(ready, sentinel),
			want: service(annotated("x", "y"), func(s *corev1.Service) { delete(s.Annotations, "x") }, noSelector),
		},
		"the controller withdraws one with a label that was written while admission was away": {
			service: service(label("yes"), sentinel), old: service(label("yes"), ready, sentinel), byController: true, want: service(label("yes")),
		},
		"the controller withdraws one with settings that were written while admission was away": {
			service: service(sentinel, annotated("scale-to-zero/cooldown", "soon"), annotated("scale-to-zero/protocol", "81=tcp")),
			old: service(ready, sentinel, annotated("scale-to-zero/cooldown", "soon"), annotated("scale-to-zero/protocol",
				"81=tcp")), byController: true,
			want: service(annotated("scale-to-zero/cooldown", "soon"), annotated("scale-to-zero/protocol", "81=tcp")),
		},
		"only the sentinel is left of a selector": {
			service: service(ready, func(s *corev1.Service) { s.Spec.Selector = map[string]string{SentinelKey: SentinelValue} }),
			old:     service(ready, sentinel),
			want:    service(annotated("x", "y"), func(s *corev1.Service) { delete(s.Annotations, "x"); s.Spec.Selector = map[string]string{} }),
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if err := Admit(tc.service, tc.old, tc.byController); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, tc.service); d != "" {
				t.Errorf("after one Admit (-want +got):\n%s", d)
			}
			if err := Admit(tc.service, tc.old, tc.byController); err != nil {
				t.Fatal(err)
			}
			// Apply it to its own result, as when the API server calls admission again.
			if tc.old != nil {
				if d := cmp.Diff(tc.want, tc.service); d != "" {
					t.Errorf("after two (-want +got):\n%s", d)
				}
			}
		})
	}
}

func TestAdmitDenies(t *testing.T) {
	tests := map[string]struct {
		change func(*corev1.Service)
		want   []string
	}{
		"label":   {label("yes"), []string{"label scale-to-zero", `"yes"`, `"true" or "false"`}},
		"enabled": {enabled("yes"), []string{"annotation scale-to-zero/enabled", `"yes"`, `"true" or "false"`}},
		"label and annotation": {
			enabled("false"), []string{"annotation scale-to-zero/enabled", `"false"`, `label scale-to-zero is "true"`, "agree"},
		},
		"internal services": {annotated("scale-to-zero/internal-services", "true"), []string{
			"scale-to-zero/internal-services",
			"set it on the Namespace",
		}},
		"direct labels": {annotated("scale-to-zero/direct-labels", "yes"), []string{"scale-to-zero/direct-labels", `"yes"`, `"true" or "false"`}},
		"unknown":       {annotated("scale-to-zero/cooldwon", "1m"), []string{"scale-to-zero/cooldwon", "scale-to-zero/cooldown"}},
		"duration":      {annotated("scale-to-zero/cooldown", "5"), []string{"scale-to-zero/cooldown", `"5"`, "30s, 5m or 1h30m", "1s"}},
		"too long":      {annotated("scale-to-zero/hold-timeout", "2h"), []string{"scale-to-zero/hold-timeout", `"2h"`, "from 1s to 1h"}},
		"negative":      {annotated("scale-to-zero/min-replicas", "-1"), []string{"scale-to-zero/min-replicas", `"-1"`, "from 0 to 1000"}},
		"overflow": {annotated("scale-to-zero/max-replicas", "4294967297"), []string{
			"scale-to-zero/max-replicas",
			"from 1 to 1000",
		}},
		"pending": {annotated("scale-to-zero/max-pending-per-pod", "many"), []string{
			"scale-to-zero/max-pending-per-pod", `"many"`, "from 1 to 100000",
		}},
		"workload": {
			annotated("scale-to-zero/workload", "web"),
			[]string{"scale-to-zero/workload", `"web"`, "Deployment/NAME, StatefulSet/NAME, or KIND.GROUP/NAME"},
		},
		"workload kind": {annotated("scale-to-zero/workload", "Rollout/web"), []string{`"Rollout/web"`}},
		"custom kind":   {annotated("scale-to-zero/workload", "Rollout.argoproj.io/"), []string{`"Rollout.argoproj.io/"`}},
		"protocol": {
			annotated("scale-to-zero/protocol", "udp"), []string{"scale-to-zero/protocol", `"udp"`, "auto, http or tcp", "as in http,5432=tcp"},
		},
		"a port that is not there": {
			annotated("scale-to-zero/protocol", "http,5432=tcp,db=tcp"),
			[]string{"scale-to-zero/protocol", `"http,5432=tcp,db=tcp"`, "Service web has no port 5432, db; it has http (80)"},
		},
		"a port named twice": {
			annotated("scale-to-zero/protocol", "http=http,80=tcp"),
			[]string{"scale-to-zero/protocol", `"http=http,80=tcp"`, "http and 80 are one port"},
		},
		"an ignored path": {
			annotated("scale-to-zero/ignore-paths", "/a,healthz"),
			[]string{"scale-to-zero/ignore-paths", `"/a,healthz"`, "beginning with /", "as in /healthz,/static/*"},
		},
		"all paths": {annotated("scale-to-zero/ignore-paths", "/*"), []string{"scale-to-zero/ignore-paths", `"/*"`, "not /*"}},
		"an ignored agent": {
			annotated("scale-to-zero/ignore-user-agents", "Acme,*"),
			[]string{"scale-to-zero/ignore-user-agents", `"Acme,*"`, "at least 3 characters", "none for counting"},
		},
		"min above max": {func(s *corev1.Service) {
			annotated("scale-to-zero/min-replicas", "3")(s)
			annotated("scale-to-zero/max-replicas", "2")(s)
		}, []string{"scale-to-zero/min-replicas", `"3"`, "at most scale-to-zero/max-replicas, which is 2"}},
		"two at a time": {func(s *corev1.Service) {
			annotated("scale-to-zero/cooldown", "x")(s)
			annotated("scale-to-zero/protocol", "y")(s)
		}, []string{"scale-to-zero/cooldown", "scale-to-zero/protocol"}},
		"empty replicas": {annotated("scale-to-zero/max-replicas", ""), []string{`""`}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := service(tc.change)
			before := s.DeepCopy()
			err := Admit(s, nil, false)
			if _, ok := errors.AsType[*SettingError](err); !ok {
				t.Fatalf("got error %v, want a SettingError", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
			if d := cmp.Diff(before, s); d != "" {
				t.Errorf("a denied Service was changed:\n%s", d)
			}
		})
	}
}

func TestAdmitLeavesForeignAnnotationsAlone(t *testing.T) {
	s := service(unlabelled, annotated("scale-to-zero/cooldown", "not read"))
	if err := Admit(s, nil, false); err != nil {
		t.Errorf("a Service that is not opted in is none of our business: %v", err)
	}
}

func FuzzParseSettings(f *testing.F) {
	for key := range settings() {
		f.Add(key, "1")
		f.Add(key, "5m")
	}
	f.Add("workload", "Deployment/a/b")
	f.Fuzz(func(t *testing.T, key, value string) {
		s, err := ParseSettings(map[string]string{Prefix + key: value})
		if err != nil {
			return
		}
		if s.Cooldown <= 0 || s.HoldTimeout <= 0 || s.TargetPendingRequests < 1 || s.MinReplicas < 0 || s.MaxReplicas < 0 {
			t.Errorf("%s=%q gives settings that cannot be: %+v", key, value, s)
		}
	})
}
