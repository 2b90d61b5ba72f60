// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/controller"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// lessons are Learned that the test sets.
type lessons chan controller.Lesson

func (l lessons) Follow(ctx context.Context, note func(controller.Lesson)) error {
	for {
		select {
		case lesson := <-l:
			note(lesson)
		case <-ctx.Done():
			return nil
		}
	}
}

// routesWritten makes the controller write the routes again, and waits for that.
func (a *app) routesWritten() {
	a.t.Helper()
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/cooldown":"7m"}}}`); err != nil {
		a.t.Fatal(err)
	}
	eventually(a.t, "the routes are written again", func() error {
		if _, routes := a.routeSlice(); routes.Cooldown.String() != "7m0s" {
			return fmt.Errorf("cool-down %s", routes.Cooldown)
		}
		return nil
	})
}

// TestServerFirstIsKept: the route slice has what the interceptors have learned about a port, and keeps it when another
// controller becomes the leader.
func TestServerFirstIsKept(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	l := make(lessons)
	p := start(t, planeOptions{interceptors: &interceptors{}, learned: l})
	a := newApp(t, 1)
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/protocol":"auto"}}}`); err != nil {
		t.Fatal(err)
	}
	a.injected()
	_, routes := a.routeSlice()
	if routes.Ports[0].ServerFirst || routes.Reach == nil || len(routes.Reach.Inside) == 0 {
		t.Errorf("routes %+v", routes)
	}
	l <- controller.Lesson{ServerFirst: []int32{routes.Ports[0].Listen, 29999}}
	kept := func() error {
		if _, routes := a.routeSlice(); !routes.Ports[0].ServerFirst {
			return fmt.Errorf("ports %+v", routes.Ports)
		}
		return nil
	}
	eventually(t, "the route slice has it", kept)
	p.stop()
	start(t, planeOptions{interceptors: &interceptors{}})
	a.routesWritten()
	if err := kept(); err != nil {
		t.Error(err)
	}
}

// TestCallsAreLearned: after two wakes in which a workload has found another one asleep, the route slice has both wake together, and
// keeps that when another controller becomes the leader and when the routes change. A Service can turn it off.
func TestCallsAreLearned(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	l := make(lessons)
	p := start(t, planeOptions{interceptors: &interceptors{}, learned: l})
	a := newApp(t, 1)
	a.injected()
	learned := func(what, want string) {
		t.Helper()
		eventually(t, what, func() error {
			if s, _ := a.routeSlice(); s.Annotations[api.LearnedAnnotation] != want {
				return fmt.Errorf("learned %s, want %s", s.Annotations[api.LearnedAnnotation], want)
			}
			return nil
		})
	}
	for i := range 2 {
		a.sleeps()
		a.scaledSeen(1)
		a.ready(1)
		l <- controller.Lesson{Calls: []controller.Call{{
			Namespace: a.ns, Caller: "Deployment/web", Callee: "Deployment/api", Call: injector.Call{At: time.Now(), Asleep: true},
		}}}
		learned("a wake", fmt.Sprintf(`{"Deployment/api":{"found":%d}}`, i+1))
	}
	for _, kind := range []string{"Service", "Deployment"} {
		a.told(kind, "web", "WakesTogether: Deployment/web has called Deployment/api in 2 of its wakes")
	}
	p.stop()
	start(t, planeOptions{interceptors: &interceptors{}})
	a.routesWritten()
	learned("it is kept", `{"Deployment/api":{"found":2}}`)
	if err := a.patch(`{"metadata":{"annotations":{"scale-to-zero/learn":"false"}}}`); err != nil {
		t.Fatal(err)
	}
	learned("it is turned off", "")
	if _, routes := a.routeSlice(); !routes.NoLearning {
		t.Errorf("routes %+v", routes)
	}
}
