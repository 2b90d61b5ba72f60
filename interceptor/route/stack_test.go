// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// member is a Service with a workload of its own that wakes with others.
func member(name string, listen int32, with ...string) Service {
	s := web()
	s.Name, s.Routes.Service, s.Routes.WakeWith = name, name, with
	s.Routes.Workload = api.Workload{Kind: "Deployment", Name: name}
	s.Routes.Ports = []api.Port{{Name: "http", Port: 80, Listen: listen, Protocol: api.ProtocolAuto}}
	return s
}

// namesOf returns the names of Deployments, sorted, each once.
func namesOf(targets []*Target) string {
	names := map[string]bool{}
	for _, t := range targets {
		names[strings.TrimPrefix(t.Key.Workload, "Deployment/")] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), " ")
}

func TestStacks(t *testing.T) {
	f := newFixture(0)
	led := func(name string) string {
		var targets []*Target
		for _, r := range f.stacks().Led(f.Target(Key{Namespace: "shop", Workload: "Deployment/" + name})) {
			targets = append(targets, r.Target())
		}
		return namesOf(targets)
	}
	leaders := func(name string) string {
		return namesOf(f.stacks().Leaders(f.Target(Key{Namespace: "shop", Workload: "Deployment/" + name})))
	}
	want := func(what, of, leads, ledBy string) {
		t.Helper()
		if got := led(of); got != leads {
			t.Errorf("%s: %s leads %q, want %q", what, of, got, leads)
		}
		if got := leaders(of); got != ledBy {
			t.Errorf("%s: %s is led by %q, want %q", what, of, got, ledBy)
		}
	}
	f.SetService(member("web", 10000, "api", "none"))
	want("a name without a Service", "web", "", "")
	f.SetService(member("api", 10001, "db"))
	f.SetService(member("db", 10002))
	f.SetService(member("other", 10003))
	want("at the front", "web", "api db", "")
	want("in the middle", "api", "db", "web")
	want("at the back", "db", "", "api web")
	want("beside it", "other", "", "")

	f.SetService(member("db", 10002, "web"))
	want("in a circle", "db", "api web", "api web")
	f.SetService(member("web", 10000))
	want("no longer", "web", "", "api db")
	f.RemoveService("shop", "api")
	want("without the middle", "db", "web", "")

	// An Ingress's traffic has an alias Service; the name is still the Service's own.
	alias := member("api-scale-to-zero", 10004, "db")
	alias.Routes.Service, alias.Routes.Workload.Name = "api", "api"
	f.SetService(alias)
	f.SetService(member("web", 10000, "api"))
	want("by an alias", "web", "api db", "api db")

	elsewhere := member("web", 10005, "db")
	elsewhere.Namespace = "elsewhere"
	f.SetService(elsewhere)
	if got := f.stacks().Led(f.Target(Key{Namespace: "elsewhere", Workload: "Deployment/web"})); len(got) > 0 {
		t.Errorf("a Service of another namespace is led: %s", got[0].Name())
	}
}

func (f *fixture) stacks() Stacks { return Stacks{f.Table} }
