// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// with returns the interceptors' slice in which some are ready and some are not.
func with(ready, unready []string) *discoveryv1.EndpointSlice {
	s := interceptorSlice(append(slices.Clone(ready), unready...)...)
	for i := range s.Endpoints {
		s.Endpoints[i].Conditions.Ready = new(i < len(ready))
	}
	return s
}

// TestRestartsAreSeen: an interceptor that was away, however it was said, is doubted for each Service until it has answered for that.
func TestRestartsAreSeen(t *testing.T) {
	const a, b = "198.18.0.2", "198.18.0.3"
	both, alone := with([]string{a, b}, nil), with([]string{a}, nil)
	foreign := func(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
		s = s.DeepCopy()
		s.Namespace = "apps"
		return s
	}
	for name, tc := range map[string]struct {
		seen []client.Object
		want string
	}{
		"nothing happens":         {[]client.Object{both}, ""},
		"one comes":               {[]client.Object{alone, both}, ""},
		"one goes":                {[]client.Object{both, alone}, ""},
		"one is unready":          {[]client.Object{both, with([]string{a}, []string{b})}, ""},
		"one is ready again":      {[]client.Object{both, with([]string{a}, []string{b}), both}, b},
		"one is back":             {[]client.Object{both, alone, both}, b},
		"the slice is made anew":  {[]client.Object{both, nil, both}, a + " " + b},
		"in another's namespace":  {[]client.Object{foreign(both), foreign(alone), foreign(both)}, ""},
		"in several steps":        {[]client.Object{both, with(nil, []string{a, b}), alone, both}, a + " " + b},
		"its node's zone changes": {[]client.Object{both, both.DeepCopy(), both}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRestarts(Options{Namespace: "ours", InterceptorService: "interceptors"})
			show(r, tc.seen...)
			web, other := types.NamespacedName{Namespace: "shop", Name: "web"}, types.NamespacedName{Namespace: "shop", Name: "other"}
			doubted := func(of types.NamespacedName) string {
				return strings.Join(slices.Sorted(maps.Keys(r.doubted(of))), " ")
			}
			if got := doubted(web); got != tc.want {
				t.Fatalf("doubts %q, want %q", got, tc.want)
			}
			counted := r.counted()
			r.answered(web, map[string]bool{a + ":1": true, a + ":2": true, b + ":1": true, b + ":2": false}, counted)
			want := ""
			if strings.Contains(tc.want, b) {
				want = b // it does not serve everything
			}
			if got := doubted(web); got != want || doubted(other) != tc.want {
				t.Errorf("after the answers doubts %q, and of another Service %q", got, doubted(other))
			}
			show(r, both, alone, both)
			r.answered(web, map[string]bool{b + ":1": true}, counted) // it was asked before that restart
			if got := doubted(web); got != b {
				t.Errorf("after another restart doubts %q", got)
			}
			r.answered(web, map[string]bool{b + ":1": true}, r.counted())
			if got := doubted(web); got != "" {
				t.Errorf("in the end doubts %q", got)
			}
			if r.forget(web); len(r.proven) > 0 {
				t.Errorf("keeps %v", r.proven)
			}
		})
	}
}

// show shows r how a slice changes. Nil is that it is gone.
func show(r *restarts, seen ...client.Object) {
	p := r.seeing()
	var before client.Object
	for _, o := range seen {
		switch {
		case before == nil && o != nil:
			p.Create(event.CreateEvent{Object: o})
		case before != nil && o == nil:
			p.Delete(event.DeleteEvent{Object: before})
		default:
			p.Update(event.UpdateEvent{ObjectOld: before, ObjectNew: o})
		}
		before = o
	}
}

// TestPublishedRestart: a published interceptor that restarts between two plans is asked again. It goes if it does not serve the routes
// any more, and stays if it cannot be asked.
func TestPublishedRestart(t *testing.T) {
	const a, b = "198.18.0.2", "198.18.0.3"
	for name, tc := range map[string]struct {
		restart bool
		change  func(*cluster)
		want    []string
	}{
		"it serves them":               {true, func(*cluster) {}, []string{a, b}},
		"another route has the port":   {true, func(c *cluster) { c.robbed = b }, []string{a}},
		"the port does not open":       {true, func(c *cluster) { c.deafAt = b }, []string{a}},
		"it cannot be asked":           {true, func(c *cluster) { c.ownsErr = status.Error(codes.Unavailable, "x") }, []string{a, b}},
		"nobody has restarted, robbed": {false, func(c *cluster) { c.robbed = b }, []string{a, b}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webDeployment(1), webService())
			c.both(1)
			c.directSlice(true)
			c.reach = []injector.PortReach{{Name: "http", Ready: 1, Reached: true}}
			c.both(3)
			r := newRestarts(Options{Namespace: "ours", InterceptorService: "interceptors"})
			c.services.observer.restarts = r
			listed := func() []string {
				var out []string
				for _, e := range c.routeSlice().Endpoints {
					out = append(out, e.Addresses...)
				}
				return out
			}
			if got := listed(); !injector.Intercepted(c.service()) || !slices.Equal(got, []string{a, b}) {
				t.Fatalf("before it publishes %v", got)
			}
			if tc.restart {
				show(r, with([]string{a, b}, nil), with([]string{a}, []string{b}), with([]string{a, b}, nil))
			}
			tc.change(c)
			c.both(2)
			if got := listed(); !slices.Equal(got, tc.want) {
				t.Errorf("publishes %v, want %v", got, tc.want)
			}
			c.robbed, c.deafAt, c.ownsErr = "", "", nil
			c.both(2)
			if got := listed(); !slices.Equal(got, []string{a, b}) || len(r.doubted(client.ObjectKeyFromObject(c.service()))) > 0 {
				t.Errorf("in the end it publishes %v, and doubts %v", got, r.doubted(client.ObjectKeyFromObject(c.service())))
			}
		})
	}
}
