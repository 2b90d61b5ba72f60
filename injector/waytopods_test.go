// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func TestProve(t *testing.T) {
	reached := func(name string) PortReach { return PortReach{Name: name, Ready: 2, Reached: true} }
	failed := func(name, port, why string) PortReach { return PortReach{Name: name, Ready: 1, Port: port, Error: why} }
	refused := func(name, port string) PortReach {
		return PortReach{Name: name, Ready: 1, Refused: true, Port: port, Error: "connection refused"}
	}
	one := []string{"http"}
	two := []string{"admin", "http"}
	for name, tc := range map[string]struct {
		found   [][]PortReach
		listed  []string
		lacks   string // part of Lacks; empty means proven
		blocked bool
	}{
		"reached":                   {[][]PortReach{{reached("http")}, {reached("http")}}, one, "", false},
		"nothing to prove it with":  {[][]PortReach{{}}, nil, "", false},
		"nobody who could prove it": {nil, one, "", false},
		"it does not know the port": {[][]PortReach{{reached("http")}, {}}, one, "has not seen its pods", false},
		"it does not know the pods": {[][]PortReach{{{Name: "http"}}}, one, "has not seen its pods", false},
		"dropped": {
			[][]PortReach{{failed("http", "8080", "i/o timeout")}},
			one,
			"on port 8080 (i/o timeout). If a NetworkPolicy restricts them, allow ingress from US;", true,
		},
		"dropped for one interceptor": {
			[][]PortReach{{reached("http")}, {failed("http", "8080", "i/o timeout")}},
			one,
			"on port 8080 (i/o timeout)", true,
		},
		"dropped on one port": {
			[][]PortReach{{reached("http"), failed("admin", "9090", "i/o timeout")}},
			two,
			"on port 9090 (i/o timeout)", true,
		},
		"reset": {[][]PortReach{{failed("http", "8080", "connection reset by peer")}}, one, "requires mTLS", true},
		"in two ways": {[][]PortReach{{failed("http", "8080", "i/o timeout"), failed("admin", "9090",
			"no route to host")}}, two, "on ports 8080, 9090 (i/o timeout, no route to host)", true},
		"refused": {
			[][]PortReach{{refused("http", "8080")}},
			one,
			"on port 8080 (connection refused). Does the app listen on all addresses?", false,
		},
		"refused on one port": {[][]PortReach{{reached("http"), refused("admin", "9090")}}, two, "", false},
		"refused on all ports": {
			[][]PortReach{{refused("http", "8080"), refused("admin", "9090")}},
			two,
			"on ports 8080, 9090 (connection refused)", false,
		},
		"refused for one interceptor": {
			[][]PortReach{{reached("http")}, {refused("http", "8080")}},
			one,
			"on port 8080 (connection refused)", false,
		},
		"refused on one, dropped on other": {
			[][]PortReach{{refused("http", "8080"), failed("admin", "9090", "i/o timeout")}},
			two,
			"on port 9090 (i/o timeout)", true,
		},
		"a port that has no pod": {[][]PortReach{{reached("http"), {Name: "admin"}}}, one, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got := Prove(tc.found, tc.listed, "US")
			if (tc.lacks == "") != got.Proven() || !strings.Contains(string(got.Lacks), tc.lacks) || got.Blocked != tc.blocked ||
				got.Nothing != (tc.listed == nil) {
				t.Errorf("got %+v, want %q", got, tc.lacks)
			}
		})
	}
}

func TestReadyPorts(t *testing.T) {
	slice := func(ready bool, ports ...string) discoveryv1.EndpointSlice {
		s := discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{Conditions: discoveryv1.EndpointConditions{Ready: &ready}}}}
		for _, p := range ports {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &p, Port: new(int32(80))})
		}
		return s
	}
	open := slice(true, "open")
	open.Ports[0].Port = nil
	got := ReadyPorts([]discoveryv1.EndpointSlice{slice(true, "http", ""), slice(true, "http"), slice(false, "admin"), open, {}})
	if diff := cmp.Diff([]string{"", "http"}, got); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
}
