// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"
	"time"
)

const notYet, quota = "the interceptors may not wake deployments/web yet", "the interceptors cannot be given the right: exceeded quota"

func lacking(right WakeRight) func(*world) {
	return func(w *world) {
		w.grants, w.rights = true, map[Wakeable]WakeRight{{"apps", "deployments", "web"}: right}
	}
}

// TestRightBeforeRoutes: no route leads to a workload before the interceptors may wake it, however the app is opted in.
func TestRightBeforeRoutes(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*world){
		"a Service": func(*world) {}, "an Ingress": byIngress, "asleep": asleep,
		"without KEDA": func(w *world) { w.keda = false },
	} {
		for why, lasting := range map[string]bool{notYet: false, quota: true} {
			t.Run(name+", "+why, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, change, lacking(WakeRight{Lacks: Skip(why), Lasting: lasting}))
				for range 5 {
					if p := w.reconcile(); p.Phase != PhaseListening || !p.Soon && p.After == 0 {
						t.Fatalf("it does not look again: %s", describe(p))
					}
					w.kubernetes()
					w.now = w.now.Add(2 * time.Second)
				}
				if len(w.slices) > 0 {
					t.Fatalf("interceptors listen on %s", w.listens())
				}
				if got := strings.Join(w.events, "\n"); got != "InjectionSkipped: Not injected: "+why {
					t.Errorf("events: %s", got)
				}
				w.rights = nil
				w.run()
				if !w.listening(name == "an Ingress") {
					t.Errorf("not injected: %v", w.events)
				}
			})
		}
	}
}

// TestRightIsLost: an app that the interceptors may not wake any more stays injected. It is told so once, and that it is over.
func TestRightIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lacking(WakeRight{}))
	w.run()
	w.events = nil
	lacking(WakeRight{Lacks: notYet})(w)
	if p := w.reconcile(); p.Phase != PhaseRedirected || p.After == 0 || len(w.events) > 0 {
		t.Fatalf("%s, %v", describe(p), w.events)
	}
	lacking(WakeRight{Lacks: quota, Lasting: true})(w)
	for range 3 {
		if p := w.reconcile(); p.Phase != PhaseRedirected || p.After == 0 {
			t.Fatal(describe(p))
		}
	}
	if got := strings.Join(w.events, "\n"); got != "WakeNotGranted: This Service stays redirected, but "+quota {
		t.Errorf("events: %s", got)
	}
	w.rights, w.events = nil, nil
	w.run()
	if got := strings.Join(w.events, "\n"); got != "WriteAccepted: The interceptors may wake Deployment/web now" {
		t.Errorf("events: %s", got)
	}
}

// TestRightOfAnotherWorkload: an injected Service that gets another workload leads to the old one until the interceptors may wake the new
// one, unless that takes too long.
func TestRightOfAnotherWorkload(t *testing.T) {
	t.Parallel()
	for why, lasting := range map[string]bool{notYet: false, quota: true} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lacking(WakeRight{}))
			w.run()
			leadsTo := func() string {
				for _, s := range w.slices {
					routes, _ := RoutesOf(s)
					return routes.Workload.Name
				}
				return ""
			}
			if got := leadsTo(); got != "web" {
				t.Fatalf("it leads to %s", got)
			}
			w.workload.Name, w.workload.UID = "web2", "2"
			w.rights = map[Wakeable]WakeRight{{"apps", "deployments", "web2"}: {Lacks: Skip(why), Lasting: lasting}}
			for range 3 {
				if p := w.reconcile(); p.Phase != PhaseRedirected || !p.Soon && p.After == 0 {
					t.Fatal(describe(p))
				}
			}
			if got := leadsTo(); (got == "web2") != lasting {
				t.Errorf("it leads to %s", got)
			}
			w.rights = nil
			w.run()
			if got := leadsTo(); got != "web2" {
				t.Errorf("in the end it leads to %s", got)
			}
		})
	}
}
