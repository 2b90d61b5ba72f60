// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// hintsText is "zone1/node1" of an endpoint that is for both, and "-" without hints.
func hintsText(e discoveryv1.Endpoint) string {
	if e.Hints == nil {
		return "-"
	}
	var zones, nodes []string
	for _, z := range e.Hints.ForZones {
		zones = append(zones, z.Name)
	}
	for _, n := range e.Hints.ForNodes {
		nodes = append(nodes, n.Name)
	}
	return fmt.Sprintf("%s/%s", strings.Join(zones, "+"), strings.Join(nodes, "+"))
}

// The hints are those that Kubernetes sets, at the interceptors and, while none is ready, at the pods.
func TestHints(t *testing.T) {
	routes := api.Routes{Service: "web", Ports: []api.Port{{Name: "http", Port: 80, Listen: 12345}}}
	interceptors := []Interceptor{
		{Address: "10.0.0.1", Node: new("node1"), Zone: new("zone1")}, {Address: "10.0.0.2", Node: new("node2")}, {Address: "10.0.0.3"},
	}
	for name, tc := range map[string]struct {
		distribution *string
		want         []string
	}{
		"none":            {nil, []string{"-", "-", "-"}},
		"empty":           {new(""), []string{"-", "-", "-"}},
		"unknown":         {new("PreferTheMoon"), []string{"-", "-", "-"}},
		"PreferClose":     {new("PreferClose"), []string{"zone1/", "-", "-"}},
		"PreferSameZone":  {new("PreferSameZone"), []string{"zone1/", "-", "-"}},
		"PreferSameNode":  {new("PreferSameNode"), []string{"zone1/node1", "/node2", "-"}},
		"not as we write": {new("prefersamezone"), []string{"-", "-", "-"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := service(func(s *corev1.Service) { s.Spec.TrafficDistribution = tc.distribution })
			published := RouteSlices(s, s, routes, DefaultSettings(), Published{routes.Ports, interceptors})[0]
			direct := published.DeepCopy()
			for i := range direct.Endpoints { // as Kubernetes would for another distribution
				direct.Endpoints[i].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "elsewhere"}}}
			}
			before := direct.DeepCopy()
			open := RouteSlices(s, s, routes, DefaultSettings(), Published{})
			if !FailOpen(open, s, []discoveryv1.EndpointSlice{*direct}) {
				t.Fatal("nothing is listed")
			}
			for _, slice := range []discoveryv1.EndpointSlice{published, open[0]} {
				var got []string
				for _, e := range slice.Endpoints {
					got = append(got, hintsText(e))
				}
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			}
			if d := cmp.Diff(before, direct); d != "" {
				t.Errorf("the direct slice was changed: (-want +got):\n%s", d)
			}
		})
	}
}

func TestCloseness(t *testing.T) {
	const mode, hints = "service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"
	for name, tc := range map[string]struct {
		distribution, annotation, value string
		lost                            bool
		want                            string
	}{
		"nothing":               {},
		"zone":                  {distribution: "PreferClose", want: "PreferClose. Clients reach an interceptor in their zone"},
		"node":                  {distribution: "PreferSameNode", want: "an interceptor on their node"},
		"annotation":            {annotation: mode, value: "Auto", lost: true, want: mode + " has no effect"},
		"old annotation":        {annotation: hints, value: "auto", lost: true, want: hints + " has no effect"},
		"annotation, disabled":  {annotation: mode, value: "Disabled"},
		"annotation beside one": {distribution: "PreferSameZone", annotation: mode, value: "Auto", want: "in their zone"},
	} {
		t.Run(name, func(t *testing.T) {
			s := service(func(s *corev1.Service) { s.Annotations = map[string]string{tc.annotation: tc.value} })
			if tc.distribution != "" {
				s.Spec.TrafficDistribution = &tc.distribution
			}
			note, lost := Closeness(s, Workload{Kind: "Deployment"})
			if lost != tc.lost || (note == "") != (tc.want == "") || !strings.Contains(note, tc.want) {
				t.Errorf("lost %t: %q", lost, note)
			}
		})
	}
}
