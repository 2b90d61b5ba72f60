// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// TestNetworkPolicies are the controllers' rights, arguments and policies for each combination of the values.
func TestNetworkPolicies(t *testing.T) {
	for name, tc := range map[string]struct {
		v      values
		args   string // of the controllers, about NetworkPolicies
		all    string // verbs in all namespaces
		own    string // verbs in the release's namespace
		chart  string // the chart's policies
		routes bool   // whether the chart opens the routes' ports
	}{
		"defaults": {values{}, "--follow-network-policies", "list,watch", "create,delete,update", "", false},
		"off":      {values{"follow": false}, "", "", "", "", false},
		"create": {
			values{"create": true},
			"--follow-network-policies --create-network-policies", "create,delete,list,update,watch",
			"create,delete,update", "", false,
		},
		"create alone": {
			values{"follow": false, "create": true}, "--create-network-policies", "create,delete,list,update,watch", "", "", false,
		},
		"enabled": {
			values{"enabled": true},
			"--follow-network-policies --interceptor-ingress", "list,watch", "create,delete,update",
			"scale-to-zero-controller", false,
		},
		"enabled alone": {values{"enabled": true, "follow": false}, "", "", "", "scale-to-zero-controller,scale-to-zero-interceptor", true},
	} {
		t.Run(name, func(t *testing.T) {
			all := must4(t, values{"networkPolicies": tc.v})
			if got := strings.Join(policyArguments(all), " "); got != tc.args {
				t.Errorf("arguments %q, want %q", got, tc.args)
			}
			for _, r := range only[*rbacv1.ClusterRole](all) {
				if strings.HasSuffix(r.Name, "-controller") && policyVerbs(r.Rules) != tc.all {
					t.Errorf("in all namespaces %q, want %q", policyVerbs(r.Rules), tc.all)
				}
			}
			for _, r := range only[*rbacv1.Role](all) {
				if strings.HasSuffix(r.Name, "-controller") && policyVerbs(r.Rules) != tc.own {
					t.Errorf("in its namespace %q, want %q", policyVerbs(r.Rules), tc.own)
				}
			}
			var names []string
			routes := false
			for _, p := range only[*networkingv1.NetworkPolicy](all) {
				names = append(names, p.Name)
				for _, rule := range p.Spec.Ingress {
					for _, port := range rule.Ports {
						routes = routes || port.EndPort != nil && *port.EndPort == 29999 && len(rule.From) == 0
					}
				}
			}
			slices.Sort(names)
			if got := strings.Join(names, ","); got != tc.chart || routes != tc.routes {
				t.Errorf("policies %q (routes %t), want %q (%t)", got, routes, tc.chart, tc.routes)
			}
		})
	}
}

func policyArguments(all []runtime.Object) []string {
	var out []string
	for _, d := range only[*appsv1.Deployment](all) {
		for _, c := range d.Spec.Template.Spec.Containers {
			for _, a := range c.Args {
				if flag, _, _ := strings.Cut(a, "="); strings.Contains(flag, "network-policies") || strings.Contains(flag, "ingress") {
					out = append(out, flag)
				}
			}
		}
	}
	return out
}

func policyVerbs(rules []rbacv1.PolicyRule) string {
	var verbs []string
	for _, r := range rules {
		if slices.Contains(r.Resources, "networkpolicies") {
			verbs = append(verbs, r.Verbs...)
		}
	}
	slices.Sort(verbs)
	return strings.Join(slices.Compact(verbs), ",")
}

// TestInterceptorIngress: the controllers get rules that a NetworkPolicy can have, for the ports that the interceptors have.
func TestInterceptorIngress(t *testing.T) {
	for name, tc := range map[string]struct {
		v    values
		want string
	}{
		"by default": {values{"networkPolicies": values{"enabled": true}}, "8081 from 0, 9443 from 2 with keda"},
		"restricted": {values{
			"networkPolicies": values{"enabled": true, "metricsFrom": []any{values{"podSelector": values{}}}},
			"keda":            values{"namespace": "operators"}, "interceptor": values{"mutualTLS": false},
		}, "8081 from 1, 9090 from 2 with operators"},
		"guarded metrics": {merged(guardedMetrics(false), values{
			"networkPolicies": values{"enabled": true, "metricsFrom": []any{values{"podSelector": values{}}}},
		}), "8081 from 0, 8443 from 1, 9443 from 2 with keda"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range only[*appsv1.Deployment](must4(t, tc.v)) {
				for _, a := range d.Spec.Template.Spec.Containers[0].Args {
					text, found := strings.CutPrefix(a, "--interceptor-ingress=")
					if !found {
						continue
					}
					var rules []networkingv1.NetworkPolicyIngressRule
					if err := json.Unmarshal([]byte(text), &rules); err != nil || len(rules) < 2 {
						t.Fatalf("%s: %v", text, err)
					}
					var all []string
					for _, r := range rules {
						all = append(all, fmt.Sprintf("%s from %d", r.Ports[0].Port, len(r.From)))
					}
					got := strings.Join(all, ", ") + " with " +
						rules[len(rules)-1].From[1].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]
					if got != tc.want {
						t.Errorf("%s, want %s", got, tc.want)
					}
					return
				}
			}
			t.Error("no rules")
		})
	}
}
