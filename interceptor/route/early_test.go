// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// starts returns web with pods that are not ready but may be probed.
func starts(ready []string, unready ...string) Service {
	s := web(ready...)
	s.Pods = len(ready) + len(unready)
	s.Unready = map[string][]string{"http": unready}
	s.Routes.Readiness = &api.Readiness{Probes: []api.Probe{{Port: 80}}, Trust: api.Duration(time.Minute)}
	return s
}

// picked returns the pods that requests go to, sorted.
func picked(r *Route) []string {
	addrs := map[string]bool{}
	for range 100 {
		if e := r.TryPick(&Visit{}); e != nil {
			addrs[e.Addr] = true
			e.Done()
		}
	}
	out := make([]string, 0, len(addrs))
	for addr := range addrs {
		out = append(out, addr)
	}
	slices.Sort(out)
	return out
}

// A verdict on a pod holds until Kubernetes decides.
func TestVouch(t *testing.T) {
	const one, two = "10.0.0.1:80", "10.0.0.2:80"
	f := newFixture(0)
	f.SetService(starts(nil, one, two))
	r := f.route(10000)
	target := r.Target()
	want := func(what string, asked []string, serve ...string) {
		t.Helper()
		if got := f.early().Unready(target); !slices.Equal(got.IPs, asked) {
			t.Errorf("%s: %v may be asked, want %v", what, got.IPs, asked)
		}
		if got := picked(r); !slices.Equal(got, serve) {
			t.Errorf("%s: requests go to %v, want %v", what, got, serve)
		}
		if target.Ready() != (len(serve) > 0) {
			t.Errorf("%s: ready is %v", what, target.Ready())
		}
	}
	both := []string{"10.0.0.1", "10.0.0.2"}
	want("none is ready", both)
	f.early().Vouch(target, "10.0.0.1", WordReady)
	want("the first says so", both, one)
	f.early().Vouch(target, "10.0.0.1", WordNone)
	want("it does not any more", both)
	f.early().Vouch(target, "10.0.0.1", WordReady)
	f.early().Vouch(target, "10.0.0.1", WordBroken)
	want("it has said so in vain", both[1:])
	f.early().Vouch(target, "10.0.0.9", WordReady)
	want("there is no such pod", both[1:])
	f.early().Vouch(target, "10.0.0.2", WordReady)
	f.SetService(starts([]string{two}, one))
	want("Kubernetes agrees", nil, two)
	f.SetService(starts([]string{one}, two))
	want("Kubernetes says it of the other", nil, one)
	f.SetService(starts(nil, one, two))
	want("it is not ready any more", both)
	f.early().Vouch(target, "10.0.0.1", WordReady)
	f.SetService(starts(nil, two))
	f.SetService(starts(nil, one, two))
	want("a pod that has its address is another one", both)
}

// An app that takes requests before it is ready has its time to start: Kubernetes, and the app's owner, do not know yet that it
// has started. The wake is over.
func TestEarlyIsStarting(t *testing.T) {
	f := newFixture(0)
	f.SetService(starts(nil))
	target := f.route(10000).Target()
	target.BeginWake()
	f.SetService(starts(nil, "10.0.0.1:80"))
	f.early().Vouch(target, "10.0.0.1", WordReady)
	if !target.Ready() || !target.Starting() || target.Waking() != 0 || target.ReadyFor() != never {
		t.Errorf("ready %v, starting %v, waking %s, ready for %s", target.Ready(), target.Starting(), target.Waking(), target.ReadyFor())
	}
	f.SetService(starts([]string{"10.0.0.1:80"}))
	if target.Starting() || target.ReadyFor() == never {
		t.Errorf("starting %v, ready for %s", target.Starting(), target.ReadyFor())
	}
}

// The pod of two Services is early at both that have it asked. At neither is a request held while their slices change one after
// the other.
func TestEarlyAtTwoServices(t *testing.T) {
	f := newFixture(0)
	second := func(s Service, listen int32) Service {
		s.Name, s.Routes.Service = "second", "second"
		s.Routes.Ports = []api.Port{{Name: "http", Port: 80, Listen: listen, Protocol: api.ProtocolAuto}}
		return s
	}
	const pod = "10.0.0.1:80"
	f.SetService(starts(nil, pod))
	f.SetService(second(starts(nil, pod), 10001))
	one, two := f.route(10000), f.route(10001)
	f.early().Vouch(one.Target(), "10.0.0.1", WordReady)
	both := func(what string) {
		t.Helper()
		if !one.HasEndpoint() || !two.HasEndpoint() {
			t.Errorf("%s: %v and %v have a pod", what, one.HasEndpoint(), two.HasEndpoint())
		}
	}
	both("early")
	f.SetService(starts([]string{pod}))
	both("ready at one")
	f.SetService(second(starts([]string{pod}), 10001))
	both("ready at both")
}

// A Service whose owner leaves the decision to Kubernetes has no early pods, and a Service that is being restored has no pods probed.
func TestNotEarly(t *testing.T) {
	f := newFixture(0)
	s := starts(nil, "10.0.0.1:80")
	s.Routes.Readiness = nil
	f.SetService(s)
	r := f.route(10000)
	if got := f.early().Unready(r.Target()); got.Readiness != nil || len(got.IPs) > 0 {
		t.Errorf("asked: %+v", got)
	}
	f.early().Vouch(r.Target(), "10.0.0.1", WordReady)
	if r.HasEndpoint() {
		t.Error("a pod serves that Kubernetes does not call ready")
	}
	s = starts(nil, "10.0.0.1:80")
	s.Routes.Retiring = true
	f.SetService(s)
	if got := f.early().Unready(r.Target()); got.Readiness != nil {
		t.Errorf("asked: %+v", got)
	}
}

// PodsChanged is called when early pods change.
func TestPodsChanged(t *testing.T) {
	told := 0
	f := newFixture(0)
	f.options.PodsChanged = func(*Target) { told++ }
	f.SetService(starts(nil, "10.0.0.1:80"))
	if told == 0 {
		t.Fatal("nobody is told of a new pod")
	}
	told = 0
	f.early().Vouch(f.route(10000).Target(), "10.0.0.1", WordBroken)
	if told == 0 {
		t.Error("nobody is told that a pod is not to be asked any more")
	}
}

func (f *fixture) early() EarlyPods { return EarlyPods{f.Table} }

// TestEarlyIsNews tests that the injector hears when a workload begins to take requests early, once for each start.
func TestEarlyIsNews(t *testing.T) {
	f := newFixture(0)
	f.SetService(starts(nil, "10.0.0.1:80", "10.0.0.2:80"))
	target := f.route(10000).Target()
	news := func(since uint64) (int, uint64) {
		n, version := f.memory.News(since)
		for _, e := range n.Early {
			if e.Key != target.Key {
				t.Errorf("news of %s", e.Key)
			}
		}
		return len(n.Early), version
	}
	f.early().Vouch(target, "10.0.0.1", WordBroken)
	n, version := news(0)
	if n != 0 {
		t.Error("a pod that must not be probed is news")
	}
	f.early().Vouch(target, "10.0.0.2", WordReady)
	if n, version = news(version); n != 1 {
		t.Errorf("the first pod: %d pieces of news", n)
	}
	f.early().Vouch(target, "10.0.0.1", WordReady)
	if n, _ := news(version); n != 0 {
		t.Errorf("the second pod: %d pieces of news", n)
	}
	f.early().Vouch(target, "10.0.0.1", WordNone)
	f.early().Vouch(target, "10.0.0.2", WordNone)
	f.early().Vouch(target, "10.0.0.2", WordReady)
	if n, _ := news(version); n != 0 {
		t.Errorf("the same start: %d pieces of news", n)
	}
}
