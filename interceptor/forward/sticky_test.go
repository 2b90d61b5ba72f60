// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// stickyRoute returns a route whose pods are at addrs.
func stickyRoute(t *testing.T, cookie string, addrs ...string) *route.Route {
	t.Helper()
	var got opened
	var a answered
	table := route.NewTable(route.TableOptions{
		Listeners: &got, Waker: &got,
		RouteMetrics:  func(string, string) route.Metrics { return &a },
		TargetMetrics: func(route.Key) route.TargetMetrics { return &a },
	})
	table.SetService(route.Service{
		Namespace: "shop", Name: "web", Pods: len(addrs), Endpoints: map[string][]string{"": addrs},
		Routes: api.Routes{
			Service: "web", ServiceUID: "5f0c", AffinityCookie: cookie, Workload: api.Workload{Kind: "Deployment", Name: "web"},
			Ports: []api.Port{{Port: 80, Listen: 10000}},
		},
	})
	return got.route
}

func TestReadCookies(t *testing.T) {
	r := stickyRoute(t, "sid", "10.0.0.1:80", "10.0.0.2:80")
	s := r.Sticky()
	pod := r.TryPick(&route.Visit{})
	pod.Done()
	id := s.ID(pod)
	here, gone, session := route.ParsePodID([]byte(id)), route.PodID(0x1f), route.HashSession([]byte("abc"))
	for field, want := range map[string]route.Visit{
		"":                             {},
		"sid=abc":                      {Session: session},
		"a=b;sid=abc":                  {Session: session},
		"  sid=abc ; a":                {Session: session},
		"sid=abc; sid=def":             {Session: session},
		"SID=abc":                      {},
		"sid":                          {},
		"xsid=abc; sidx=abc":           {},
		"sid =abc":                     {},
		s.Own + "=" + id:               {Pin: here},
		s.Own + "=10.0.0.1":            {},
		s.Own + `="` + id + `"`:        {},
		"sid=abc; " + s.Own + "=" + id: {Pin: here, Session: session},
		s.Own + "=000000000000001f; " + s.Own + "=" + id + "; x=y": {Pin: here},
		s.Own + "=" + id + "; " + s.Own + "=000000000000001f":      {Pin: here},
		s.Own + "=000000000000001f":                                {Pin: gone},
		"scale-to-zero-00000000=" + id:                             {},
		";;=;=a;sid=abc;":                                          {Session: session},
	} {
		var got route.Visit
		readCookies(s, &got, []byte(field))
		if got.Pin != want.Pin || got.Session != want.Session {
			t.Errorf("%q: pin %x, session %x; want %x, %x", field, got.Pin, got.Session, want.Pin, want.Session)
		}
	}
}

func TestSetCookie(t *testing.T) {
	r := stickyRoute(t, "sid", "10.0.0.1:80", "10.0.0.2:80")
	auto := stickyRoute(t, api.AffinityAuto, "10.0.0.1:80").Sticky()
	s := r.Sticky()
	pod, left := r.TryPick(&route.Visit{}), &route.Endpoint{Addr: "10.0.0.9:80"}
	pod.Done()
	own := s.Own + "=" + s.ID(pod)
	pinned := route.ParsePodID([]byte(s.ID(pod)))
	for name, tc := range map[string]struct {
		sticky        *route.Sticky
		visit         route.Visit
		pod           *route.Endpoint
		issued, https bool
		want          string
	}{
		"a new visitor":           {sticky: s, pod: pod},
		"the app opens a session": {sticky: s, pod: pod, issued: true, want: own + "; Path=/app; Secure"},
		"the app renews the session": {
			sticky: s, pod: pod, visit: route.Visit{Pin: pinned, Session: 1}, issued: true, want: own + "; Path=/app; Secure",
		},
		"a session without our cookie": {sticky: s, pod: pod, visit: route.Visit{Session: 1}, want: own + "; Path=/; HttpOnly; SameSite=Lax"},
		"a session of a pod that has left": {
			sticky: s, pod: pod, visit: route.Visit{Session: 1, Pin: 5}, https: true, want: own + "; Path=/; HttpOnly; Secure; SameSite=None",
		},
		"a session that is pinned":         {sticky: s, pod: pod, visit: route.Visit{Session: 1, Pin: pinned}},
		"a pod that has left answers":      {sticky: s, pod: left, visit: route.Visit{Session: 1}, issued: true},
		"without a session cookie, pinned": {sticky: auto, pod: left, visit: route.Visit{Pin: pinned}},
	} {
		var session []byte
		if tc.issued {
			session, _ = issues(tc.sticky, []byte("sid=x; Path=/app; Secure"))
		}
		if got := setCookie(tc.sticky, &tc.visit, tc.pod, session, tc.issued, tc.https); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestIssues(t *testing.T) {
	s := stickyRoute(t, "sid", "10.0.0.1:80").Sticky()
	for field, want := range map[string]string{
		"sid=a": "", " sid =a; Path=/": "; Path=/", "sid=;Max-Age=0": ";Max-Age=0", "sid=a=b;;": ";;",
		"side=a": "no", "SID=a": "no", "sid": "no", "sid; a=b": "no", "": "no", "x=sid=a": "no",
	} {
		got, ok := issues(s, []byte(field))
		if ok != (want != "no") || ok && string(got) != want {
			t.Errorf("%q: %q, %t", field, got, ok)
		}
	}
}

// A request with its cookie allocates nothing.
func TestStickyAllocatesNothing(t *testing.T) {
	r := stickyRoute(t, "sid", "10.0.0.1:80", "10.0.0.2:80")
	s := r.Sticky()
	pod := r.TryPick(&route.Visit{})
	pod.Done()
	field, answer := []byte("a=b; sid=abcdef; "+s.Own+"="+s.ID(pod)), []byte("theme=dark; Path=/")
	if n := testing.AllocsPerRun(100, func() {
		var visit route.Visit
		readCookies(s, &visit, field)
		session, issued := issues(s, answer)
		if setCookie(s, &visit, pod, session, issued, false) != "" {
			t.Error("a cookie is set again")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
