// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// guardedMetrics has /metrics served only to those who may read it.
func guardedMetrics(podMonitors bool) values {
	return values{"metrics": values{"authentication": true, "podMonitors": values{"enabled": podMonitors}}}
}

// reviewers returns the accounts that may ask the API server about tokens and rights.
func reviewers(all []runtime.Object) []string {
	roles := map[string]bool{}
	for _, r := range only[*rbacv1.ClusterRole](all) {
		for _, rule := range r.Rules {
			for _, resource := range []string{"tokenreviews", "subjectaccessreviews"} {
				if slices.Contains(rule.Resources, resource) && slices.Equal(rule.Verbs, []string{"create"}) {
					roles[r.Name+" "+resource] = true
				}
			}
		}
	}
	var out []string
	for _, b := range only[*rbacv1.ClusterRoleBinding](all) {
		for _, resource := range []string{"tokenreviews", "subjectaccessreviews"} {
			for _, s := range b.Subjects {
				if roles[b.RoleRef.Name+" "+resource] {
					out = append(out, s.Name+" "+resource)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// readers returns the accounts that may get /metrics.
func readers(all []runtime.Object) []string {
	var out []string
	for _, b := range only[*rbacv1.ClusterRoleBinding](all) {
		for _, r := range only[*rbacv1.ClusterRole](all) {
			for _, rule := range r.Rules {
				if r.Name == b.RoleRef.Name && slices.Contains(rule.NonResourceURLs, "/metrics") {
					out = append(out, b.Subjects[0].Name)
				}
			}
		}
	}
	return out
}

// TestGuardedMetrics: who may ask, who may read, and where metrics are, follow from one value.
func TestGuardedMetrics(t *testing.T) {
	asking := []string{
		"scale-to-zero-controller subjectaccessreviews", "scale-to-zero-controller tokenreviews",
		"scale-to-zero-interceptor subjectaccessreviews", "scale-to-zero-interceptor tokenreviews",
	}
	for name, tc := range map[string]struct {
		v       values
		guarded bool
		asking  []string
		readers []string
	}{
		"by default":       {v: values{}},
		"of old values":    {v: values{"metrics": nil}},
		"monitored":        {v: values{"metrics": values{"podMonitors": values{"enabled": true}}}},
		"guarded":          {guardedMetrics(false), true, asking, nil},
		"guarded monitors": {guardedMetrics(true), true, asking, []string{"scale-to-zero-metrics-reader"}},
		"with cert-manager": {
			merged(withCertManager(), guardedMetrics(true)), true, asking,
			[]string{"scale-to-zero-metrics-reader"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.v["metrics"] == nil && len(tc.v) > 0 {
				tc.v = values{"metrics": values{"podMonitors": values{"enabled": false}, "authentication": nil}}
			}
			all := must4(t, tc.v)
			if got := reviewers(all); !slices.Equal(got, tc.asking) {
				t.Errorf("%v may ask, want %v", got, tc.asking)
			}
			if got := readers(all); !slices.Equal(got, tc.readers) {
				t.Errorf("%v may read, want %v", got, tc.readers)
			}
			for _, d := range only[*appsv1.Deployment](all) {
				args := arguments(t, all, key(d))
				_, guarded := args["--metrics-authentication"]
				if guarded != tc.guarded {
					t.Errorf("%s: guarded %t", d.Name, guarded)
				}
				for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
					if p.Name == "metrics" && args["--metrics-address"] != fmt.Sprintf(":%d", p.ContainerPort) {
						t.Errorf("%s: port %d, but %s", d.Name, p.ContainerPort, args["--metrics-address"])
					}
				}
			}
		})
	}
}

// TestMonitorsFindMetrics: each PodMonitor names a port that the pods have, and with authentication a token and the CA of the
// certificate that they show, in Secrets that exist.
func TestMonitorsFindMetrics(t *testing.T) {
	for name, v := range map[string]values{
		"plain":        {"metrics": values{"podMonitors": values{"enabled": true}}},
		"guarded":      guardedMetrics(true),
		"cert-manager": merged(withCertManager(), guardedMetrics(true)),
	} {
		t.Run(name, func(t *testing.T) {
			all := must4(t, v)
			controller := arguments(t, all, "Deployment/scale-to-zero-controller")
			interceptor := arguments(t, all, "Deployment/scale-to-zero-interceptor")
			found := 0
			for _, m := range only[*unstructured.Unstructured](all) {
				if m.GetKind() != "PodMonitor" {
					continue
				}
				found++
				secret, server := controller["--cert-secret"], "scale-to-zero-webhook.scale-to-zero.svc"
				if strings.HasSuffix(m.GetName(), "-interceptor") {
					secret, server = interceptor["--cert-secret"], "scale-to-zero-interceptor.scale-to-zero.svc"
				}
				endpoints, _, _ := unstructured.NestedSlice(m.Object, "spec", "podMetricsEndpoints")
				endpoint, _ := endpoints[0].(map[string]any)
				port, _, _ := unstructured.NestedString(endpoint, "port")
				d := only[*appsv1.Deployment](all)[slices.IndexFunc(only[*appsv1.Deployment](all), func(d *appsv1.Deployment) bool {
					return d.Name == m.GetName()
				})]
				if !slices.ContainsFunc(d.Spec.Template.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
					t.Errorf("%s scrapes port %q, which there is not", m.GetName(), port)
				}
				scheme, _, _ := unstructured.NestedString(endpoint, "scheme")
				ca, _, _ := unstructured.NestedString(endpoint, "tlsConfig", "ca", "secret", "name")
				host, _, _ := unstructured.NestedString(endpoint, "tlsConfig", "serverName")
				token, _, _ := unstructured.NestedString(endpoint, "authorization", "credentials", "name")
				if name == "plain" {
					if scheme+ca+host+token != "" || port == "metrics" && m.GetName() != "scale-to-zero-controller" {
						t.Errorf("%s: %v", m.GetName(), endpoint)
					}
					continue
				}
				if scheme != "https" || ca != secret || host != server || token != "scale-to-zero-metrics-token" || port != "metrics" {
					t.Errorf("%s: %v, want the CA in %s for %s", m.GetName(), endpoint, secret, server)
				}
				if !slices.ContainsFunc(only[*corev1.Secret](all), func(s *corev1.Secret) bool {
					return s.Name == token && s.Type == corev1.SecretTypeServiceAccountToken &&
						s.Annotations[corev1.ServiceAccountNameKey] == readers(all)[0]
				}) {
					t.Errorf("%s: no Secret %s for the reader's token", m.GetName(), token)
				}
			}
			if found != 2 {
				t.Errorf("%d PodMonitors", found)
			}
		})
	}
}

// TestGuardedMetricsAreBound: with authentication, networkPolicies.metricsFrom is about the port of metrics, and not about the probes'.
func TestGuardedMetricsAreBound(t *testing.T) {
	all := must4(t, merged(guardedMetrics(false), values{"networkPolicies": values{
		"enabled": true, "follow": false, "metricsFrom": []any{values{"podSelector": values{}}},
	}}))
	got := map[string]string{}
	for _, p := range only[*networkingv1.NetworkPolicy](all) {
		for _, rule := range p.Spec.Ingress {
			for _, port := range rule.Ports {
				got[p.Name] += fmt.Sprintf("%s:%d ", port.Port, len(rule.From))
			}
		}
	}
	want := map[string]string{
		"scale-to-zero-controller":  "webhook:0 health:0 metrics:1 ",
		"scale-to-zero-interceptor": "8081:0 8443:1 9443:2 10000:0 ",
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s: %s, want %s", name, got[name], want[name])
		}
	}
}

// TestGuardedMetricsNeedTLS: without certificates for the interceptors, the chart says so.
func TestGuardedMetricsNeedTLS(t *testing.T) {
	for _, h := range helms() {
		_, err := h.render(ours, "scale-to-zero", "scale-to-zero", merged(plainText(), guardedMetrics(false)))
		if err == nil || !strings.Contains(err.Error(), "metrics.authentication is true, but interceptor.mutualTLS is false") {
			t.Errorf("%s: %v", h.name, err)
		}
	}
}
