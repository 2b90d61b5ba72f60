// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A workload has a check for each of its Services that has one, with the ready pods of its port.
func TestBusyChecks(t *testing.T) {
	f := newFixture(0)
	key := Key{Namespace: "shop", Workload: "Deployment/web"}
	of := func(name, service string, listen int32, busy *api.Busy) Service {
		s := member(name, listen)
		s.Routes.Service, s.Routes.Workload.Name, s.Routes.Busy = service, "web", busy
		s.Routes.Ports = []api.Port{
			{Name: "db", Port: 5432, Listen: listen, Protocol: api.ProtocolTCP},
			{Name: "http", Port: 80, Listen: listen + 1, Protocol: api.ProtocolAuto, ProxyProtocol: true},
		}
		s.Pods = 2
		s.Endpoints = map[string][]string{"db": {"10.0.0.1:5432"}, "http": {"10.0.0.1:8080", "10.0.0.2:8080"}}
		s.Unready = map[string][]string{"http": {"10.0.0.3:8080"}}
		return s
	}
	checks := func() string {
		var all []string
		for _, c := range (BusyChecks{Table: f.Table}).Of(f.Target(key)) {
			all = append(all, fmt.Sprintf("%s/%s %v %t %s", c.Namespace, c.Service, c.Addrs, c.ProxyProtocol, c.Workload))
		}
		return strings.Join(all, "; ")
	}
	request := &api.Busy{Request: &api.BusyRequest{Method: "GET", Path: "/", Port: 80, When: "status == 200"}}
	const web = "shop/web [10.0.0.1:8080 10.0.0.2:8080] true Deployment/web"
	for _, step := range []struct {
		what string
		set  Service
		want string
	}{
		{"none", of("web", "web", 10000, nil), ""},
		{"a request", of("web", "web", 10000, request), web},
		{"the same by an Ingress", of("web-scale-to-zero", "web", 10010, request), web},
		{"another Service", of("api", "api", 10020, &api.Busy{CPU: 1, Pods: "app=web"}), "shop/api [] false Deployment/web; " + web},
		{"no longer", of("web-scale-to-zero", "web", 10010, nil), "shop/api [] false Deployment/web; " + web},
	} {
		f.SetService(step.set)
		if got := checks(); got != step.want {
			t.Errorf("%s: %s", step.what, got)
		}
	}
	f.RemoveService("shop", "web")
	f.RemoveService("shop", "api")
	f.SetService(of("web-scale-to-zero", "web", 10010, nil))
	if got := checks(); got != "" || f.Target(key).BusyChecked() {
		t.Errorf("without checks: %s", got)
	}
}
