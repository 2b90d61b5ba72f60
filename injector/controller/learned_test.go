// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// TestNewsReachesWorkloads tests that calls have their caller reconciled, and that the plan sees them, and when the workload took
// requests.
func TestNewsReachesWorkloads(t *testing.T) {
	c := newCluster(t, webDeployment(1), webService())
	web := types.NamespacedName{Namespace: "apps", Name: "Deployment/web"}
	now := time.Now()
	call := func(callee string, age time.Duration) Call {
		return Call{Namespace: "apps", Caller: "Deployment/web", Callee: callee, Call: injector.Call{At: now.Add(-age), Asleep: true}}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.learned.note(t.Context(), Lesson{
			Calls: []Call{call("Deployment/api", time.Second), call("Deployment/db", 2*time.Second)},
			Early: map[types.NamespacedName]time.Time{web: now.Add(-time.Second)},
		})
		c.learned.note(t.Context(), Lesson{Early: map[types.NamespacedName]time.Time{{Namespace: "apps", Name: "Deployment/x"}: now}})
	}()
	if e := <-c.learned.called; e.Object != web {
		t.Errorf("%v is reconciled", e.Object)
	}
	<-done
	w, _ := injector.NewWorkload(c.deployment())
	o, _, err := c.scaling.observer.plan(t.Context(), injector.Target{Workload: w, Object: c.deployment()}, injector.WorkloadMemory{})
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(o.Calls)); len(got) != 2 || got[0] != "Deployment/api" || !o.Calls[got[0]].Asleep ||
		!o.Early.Equal(now.Add(-time.Second)) {
		t.Errorf("calls %v, early %s", o.Calls, o.Early)
	}

	c.learned.noteEarly(map[types.NamespacedName]time.Time{web: now.Add(-time.Minute)}, now)
	if callers := c.learned.noteCalls([]Call{call("Deployment/api", time.Minute)}, now); len(callers) > 0 {
		t.Errorf("older news of %v from another interceptor counts", callers)
	}
	if _, early := c.learned.of(web); !early.Equal(now.Add(-time.Second)) {
		t.Errorf("older news: early %s", early)
	}
	later := now.Add(newsKept - time.Second)
	if callers := c.learned.noteCalls([]Call{call("Deployment/new", -time.Minute)}, later); len(callers) != 1 {
		t.Errorf("callers %v", callers)
	}
	c.learned.noteEarly(map[types.NamespacedName]time.Time{{Namespace: "apps", Name: "Deployment/y"}: later}, later.Add(time.Second))
	calls, early := c.learned.of(web)
	if got := slices.Sorted(maps.Keys(calls)); len(got) != 2 || got[0] != "Deployment/api" || got[1] != "Deployment/new" || !early.IsZero() {
		t.Errorf("after a while: calls %v, early %s", calls, early)
	}
}
