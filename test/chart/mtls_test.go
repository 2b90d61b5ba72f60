// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// plainText leaves the interceptors' port to a service mesh.
func plainText() values { return values{"interceptor": values{"mutualTLS": false}} }

// merged has the keys of both.
func merged(a, b values) values {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// grpcPort returns the port of the interceptors' Service.
func grpcPort(t *testing.T, all []runtime.Object) corev1.ServicePort {
	t.Helper()
	for _, s := range only[*corev1.Service](all) {
		if s.Name == "scale-to-zero-interceptor" {
			return s.Spec.Ports[0]
		}
	}
	t.Fatal("there is no Service of the interceptors")
	return corev1.ServicePort{}
}

// TestPortsAgree: the interceptors listen where the Service, the controllers and KEDA call, with and without TLS, and with values of a
// chart that did not know the difference.
func TestPortsAgree(t *testing.T) {
	for name, tc := range map[string]struct {
		v    values
		port string
		tls  bool
		name string
	}{
		"by default":    {values{}, "9443", true, "tls-grpc"},
		"of old values": {values{"interceptor": values{"mutualTLS": nil}, "keda": nil}, "9443", true, "tls-grpc"},
		"in plain text": {plainText(), "9090", false, "grpc"},
	} {
		t.Run(name, func(t *testing.T) {
			all := must4(t, tc.v)
			port := grpcPort(t, all)
			controller := arguments(t, all, "Deployment/scale-to-zero-controller")
			interceptor := arguments(t, all, "Deployment/scale-to-zero-interceptor")
			if got := controller["--scaler-address"]; got != "scale-to-zero-interceptor.scale-to-zero.svc:"+tc.port {
				t.Errorf("the controllers call %s", got)
			}
			if got := interceptor["--grpc-address"]; got != ":"+tc.port || port.Name != tc.name {
				t.Errorf("the interceptors listen at %s, port %q of the Service", got, port.Name)
			}
			_, plain := controller["--mutual-tls"]
			_, plainToo := interceptor["--mutual-tls"]
			if plain == tc.tls || plainToo == tc.tls {
				t.Errorf("TLS is off: %v, %v", plain, plainToo)
			}
			for _, d := range only[*appsv1.Deployment](all) {
				for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
					if p.Name == "grpc" && (tc.port == "9443") != (p.ContainerPort == 9443) {
						t.Errorf("the container has port %d", p.ContainerPort)
					}
				}
			}
		})
	}
}

// secretRights returns the rights on Secrets of a role, as "verb name".
func secretRights(all []runtime.Object, namespace, role string) []string {
	var out []string
	for _, r := range only[*rbacv1.Role](all) {
		if r.Namespace != namespace || r.Name != role {
			continue
		}
		for _, rule := range r.Rules {
			for _, verb := range rule.Verbs {
				if slices.Contains(rule.Resources, "secrets") {
					out = append(out, verb+" "+strings.Join(rule.ResourceNames, ","))
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// TestKeysAreApart: nobody but the controllers may read the authority's key and the controllers' key, and they may not make Secrets of
// KEDA's.
func TestKeysAreApart(t *testing.T) {
	for mode, v := range map[string]values{"self": {}, "cert-manager": withCertManager()} {
		all := must4(t, merged(v, values{"keda": values{"namespace": "autoscaling"}}))
		own := arguments(t, all, "Deployment/scale-to-zero-interceptor")["--cert-secret"]
		if got := arguments(t, all, "Deployment/scale-to-zero-controller")["--interceptor-cert-secret"]; got != own || own == "" {
			t.Errorf("%s: the interceptors' certificate is in %q or in %q", mode, own, got)
		}
		want := []string{"list " + own, "watch " + own}
		if got := secretRights(all, "scale-to-zero", "scale-to-zero-interceptor"); !slices.Equal(got, want) {
			t.Errorf("%s: the interceptors may %v", mode, got)
		}
		want = []string{"get scale-to-zero", "patch scale-to-zero"}
		if got := secretRights(all, "autoscaling", "scale-to-zero-controller-keda"); !slices.Equal(got, want) {
			t.Errorf("%s: the controllers may %v", mode, got)
		}
		for _, right := range secretRights(all, "scale-to-zero", "scale-to-zero-controller") {
			verb, names, _ := strings.Cut(right, " ")
			if mode == "cert-manager" && (strings.Contains(names, own) || strings.Contains(names, "-ca") || verb == "update") {
				t.Errorf("with cert-manager the controllers may %s", right)
			}
		}
		if secrets := only[*corev1.Secret](all); len(secrets) != 1 || secrets[0].Namespace != "autoscaling" || len(secrets[0].Data) > 0 {
			t.Errorf("%s: Secrets %v", mode, secrets)
		}
	}
}

// TestInternalCertificates: cert-manager makes the three certificates from an authority of their own, whatever issuer the webhook has.
func TestInternalCertificates(t *testing.T) {
	for name, issuer := range map[string]values{"the chart's": {}, "another": {"name": "platform", "kind": "ClusterIssuer"}} {
		t.Run(name, func(t *testing.T) {
			all := must4(t, values{"certs": values{"mode": "cert-manager", "issuerRef": issuer}})
			certificates, issuers := byName(only[*certmanagerv1.Certificate](all)), byName(only[*certmanagerv1.Issuer](all))
			args := arguments(t, all, "Deployment/scale-to-zero-controller")
			for flag, want := range map[string][]string{
				"--interceptor-cert-secret": {"interceptor.scale-to-zero.internal", "scale-to-zero-interceptor.scale-to-zero.svc"},
				"--controller-cert-secret":  {"controller.scale-to-zero.internal"},
				"--keda-cert-secret":        {"keda.scale-to-zero.internal"},
			} {
				c := certificates[args[flag]]
				if c == nil || c.Spec.SecretName != c.Name || !slices.Equal(c.Spec.DNSNames, want) {
					t.Errorf("%s: %v", flag, c)
					continue
				}
				serves := slices.Contains(c.Spec.Usages, certmanagerv1.UsageServerAuth)
				if serves != (flag == "--interceptor-cert-secret") || !slices.Contains(c.Spec.Usages, certmanagerv1.UsageClientAuth) {
					t.Errorf("%s: for %v", flag, c.Spec.Usages)
				}
				by := issuers[c.Spec.IssuerRef.Name]
				if by == nil || by.Spec.CA == nil {
					t.Fatalf("%s: its issuer is %v", flag, c.Spec.IssuerRef)
				}
				ca := certificates[by.Spec.CA.SecretName]
				if ca == nil || !ca.Spec.IsCA || ca.Spec.PrivateKey.RotationPolicy != certmanagerv1.RotationPolicyNever ||
					ca.Spec.RenewBefore.Duration < c.Spec.Duration.Duration+24*time.Hour {
					t.Errorf("%s: its CA is %v", flag, ca)
				}
				if root := issuers[ca.Spec.IssuerRef.Name]; root == nil || root.Spec.SelfSigned == nil || ca.Name == args["--cert-secret"] {
					t.Errorf("%s: its CA's issuer is %v", flag, root)
				}
			}
		})
	}
}
