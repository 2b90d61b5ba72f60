// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

const certManagerAPI = "cert-manager.io/v1"

func withCertManager() values { return values{"certs": values{"mode": "cert-manager"}} }

func TestCertManagerIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		v    values
		apis []string
		want []string
	}{
		"without its API": {
			v: withCertManager(), want: []string{"install cert-manager first", "leave certs.mode at self", "--api-versions cert-manager.io/v1"},
		},
		"an issuer that nobody asks": {
			v:    values{"certs": values{"issuerRef": values{"name": "platform"}}},
			apis: []string{certManagerAPI}, want: []string{"certs.issuerRef is set, but certs.mode is self"},
		},
	} {
		for _, h := range helms() {
			_, err := h.render(ours, "r", "ns", tc.v, tc.apis...)
			if err == nil {
				t.Errorf("%s, %s: it is rendered", h.name, name)
				continue
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s, %s: the error %v does not tell %q", h.name, name, err, want)
				}
			}
		}
	}
}

func TestLintNeedsNoCertManager(t *testing.T) {
	for _, h := range helms() {
		for _, err := range h.lint(ours, withCertManager()) {
			t.Errorf("%s: %v", h.name, err)
		}
	}
}

// arguments returns the arguments of a pod's container.
func arguments(t *testing.T, all []runtime.Object, pod string) map[string]string {
	t.Helper()
	template, ok := templates(all)[pod]
	if !ok {
		t.Fatalf("there is no %s", pod)
	}
	out := map[string]string{}
	for _, arg := range template.Spec.Containers[0].Args {
		name, value, _ := strings.Cut(arg, "=")
		out[name] = value
	}
	return out
}

func byName[T metav1.Object](objects []T) map[string]T {
	out := map[string]T{}
	for _, o := range objects {
		out[o.GetName()] = o
	}
	return out
}

// From the issuer to the API server, each refers to the next.
func TestCertManagerChain(t *testing.T) {
	all := must4(t, merged(withCertManager(), plainText()))
	config := only[*admissionv1.MutatingWebhookConfiguration](all)[0]
	certificates, issuers := byName(only[*certmanagerv1.Certificate](all)), byName(only[*certmanagerv1.Issuer](all))
	if len(certificates) != 2 || len(issuers) != 2 {
		t.Fatalf("%d certificates, %d issuers", len(certificates), len(issuers))
	}
	serving, ok := certificates[strings.TrimPrefix(config.Annotations[certmanagerv1.WantInjectAnnotation], "scale-to-zero/")]
	if !ok {
		t.Fatalf("the CA is injected from %q, which is not there", config.Annotations[certmanagerv1.WantInjectAnnotation])
	}
	args := arguments(t, all, "Deployment/scale-to-zero-controller")
	if args["--certs-mode"] != "cert-manager" || args["--cert-secret"] != serving.Spec.SecretName {
		t.Errorf("the controller is started with %v, the certificate is in %s", args, serving.Spec.SecretName)
	}
	service := config.Webhooks[0].ClientConfig.Service
	if want := []string{service.Name + "." + service.Namespace + ".svc"}; !slices.Equal(serving.Spec.DNSNames, want) {
		t.Errorf("the certificate is for %v, want %v", serving.Spec.DNSNames, want)
	}
	issuer := issuers[serving.Spec.IssuerRef.Name]
	if issuer == nil || issuer.Spec.CA == nil {
		t.Fatalf("the certificate's issuer is %v", issuer)
	}
	ca := certificates[issuer.Spec.CA.SecretName]
	if ca == nil || !ca.Spec.IsCA || ca.Spec.SecretName != ca.Name {
		t.Fatalf("the issuer's CA is %v", ca)
	}
	if root := issuers[ca.Spec.IssuerRef.Name]; root == nil || root.Spec.SelfSigned == nil {
		t.Errorf("the CA's issuer is %v", root)
	}
	// For how this survives a renewal of the CA, see TestRenewalOfTheCA in certs.
	if ca.Spec.PrivateKey.RotationPolicy != certmanagerv1.RotationPolicyNever {
		t.Errorf("a renewed CA has another key: %s", ca.Spec.PrivateKey.RotationPolicy)
	}
	if ca.Spec.RenewBefore.Duration < serving.Spec.Duration.Duration+24*time.Hour {
		t.Errorf("a certificate may outlive its CA: %s, renewed %s before the end", serving.Spec.Duration, ca.Spec.RenewBefore)
	}
}

func TestOwnIssuer(t *testing.T) {
	for name, tc := range map[string]struct {
		ref  values
		want cmmeta.IssuerReference
	}{
		"name": {values{"name": "a"}, cmmeta.IssuerReference{Name: "a", Kind: "Issuer", Group: "cert-manager.io"}},
		"kind": {
			values{"name": "a", "kind": "ClusterIssuer"}, cmmeta.IssuerReference{Name: "a", Kind: "ClusterIssuer", Group: "cert-manager.io"},
		},
		"external": {
			values{"name": "a", "kind": "B", "group": "c.example.com"}, cmmeta.IssuerReference{Name: "a", Kind: "B", Group: "c.example.com"},
		},
	} {
		all := must4(t, merged(values{"certs": values{"mode": "cert-manager", "issuerRef": tc.ref}}, plainText()))
		certificates := only[*certmanagerv1.Certificate](all)
		if len(certificates) != 1 || len(only[*certmanagerv1.Issuer](all)) != 0 {
			t.Errorf("%s: %d certificates", name, len(certificates))
			continue
		}
		if got := certificates[0].Spec.IssuerRef; got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// secretsAndConfigurations returns a component's rights on Secrets, webhook configurations and cert-manager's kinds, as
// "verb resource/name".
func secretsAndConfigurations(all []runtime.Object, component string) []string {
	var out []string
	add := func(rules []rbacv1.PolicyRule) {
		for _, r := range rules {
			names := r.ResourceNames
			if len(names) == 0 {
				names = []string{""} // any
			}
			for _, resource := range r.Resources {
				if !slices.Contains([]string{"secrets", "mutatingwebhookconfigurations", "certificates", "issuers", "clusterissuers"}, resource) {
					continue
				}
				for _, verb := range r.Verbs {
					for _, name := range names {
						out = append(out, verb+" "+resource+"/"+name)
					}
				}
			}
		}
	}
	for _, r := range only[*rbacv1.ClusterRole](all) {
		if r.Name == "scale-to-zero-"+component {
			add(r.Rules)
		}
	}
	for _, r := range only[*rbacv1.Role](all) {
		if r.Name == "scale-to-zero-"+component {
			add(r.Rules)
		}
	}
	slices.Sort(out)
	return out
}

// With cert-manager the controllers may only read what they serve, what explains why they cannot serve it yet, and which Services
// webhooks call.
func TestCertManagerTakesRightsAway(t *testing.T) {
	const tls = "scale-to-zero-webhook-tls"
	read := []string{
		"get certificates/" + tls, "get secrets/" + tls, "list mutatingwebhookconfigurations/", "list secrets/" + tls,
		"watch mutatingwebhookconfigurations/", "watch secrets/" + tls,
	}
	for name, tc := range map[string]struct {
		issuerRef values
		issuer    string // that the controllers may read
	}{
		"the chart's CA":       {values{}, "get issuers/scale-to-zero-webhook-ca"},
		"an Issuer":            {values{"name": "ca"}, "get issuers/ca"},
		"a ClusterIssuer":      {values{"name": "ca", "kind": "ClusterIssuer"}, "get clusterissuers/ca"},
		"somebody else's kind": {values{"name": "ca", "kind": "Issuer", "group": "example.com"}, ""},
	} {
		want := read
		if tc.issuer != "" {
			want = slices.Sorted(slices.Values(append([]string{tc.issuer}, read...)))
		}
		all := must4(t, merged(values{"certs": values{"mode": "cert-manager", "issuerRef": tc.issuerRef}}, plainText()))
		if got := secretsAndConfigurations(all, "controller"); !slices.Equal(got, want) {
			t.Errorf("%s: the controller may %v, want %v", name, got, want)
		}
	}
	got := secretsAndConfigurations(must4(t, values{}), "controller")
	for _, want := range []string{
		"create secrets/", "update secrets/scale-to-zero-webhook-cert", "patch mutatingwebhookconfigurations/scale-to-zero",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("by itself the controller may %v, want %s", got, want)
		}
	}
}

// cert-manager leaves the Secrets of deleted Certificates behind. The restore command knows and may delete every object
// that either mode may have made.
func TestUninstallRemovesTheSecrets(t *testing.T) {
	for name, v := range map[string]values{"self": {}, "cert-manager": withCertManager()} {
		all := must4(t, v)
		args := arguments(t, all, "Job/scale-to-zero-restore")
		certificates := strings.Split(args["--certificates"], ",")
		may := secretsAndConfigurations(all, "restore")
		secrets := append([]string{args["--cert-secret"]}, certificates...)
		for _, c := range only[*certmanagerv1.Certificate](all) {
			if !slices.Contains(certificates, c.Name) || c.Spec.SecretName != c.Name {
				t.Errorf("%s: certificate %s with secret %s is left behind by %v", name, c.Name, c.Spec.SecretName, args)
			}
		}
		if own := arguments(t, all, "Deployment/scale-to-zero-controller")["--cert-secret"]; !slices.Contains(secrets, own) {
			t.Errorf("%s: secret %s is left behind by %v", name, own, args)
		}
		var want []string
		for _, c := range certificates {
			want = append(want, "delete certificates/"+c)
		}
		for _, s := range secrets {
			want = append(want, "delete secrets/"+s)
		}
		slices.Sort(want)
		if !slices.Equal(may, want) {
			t.Errorf("%s: the command may %v, want %v", name, may, want)
		}
	}
}

// A real API server with cert-manager's own CRDs accepts the chart's objects for cert-manager, with strict validation.
func TestServerAcceptsIssuersAndCertificates(t *testing.T) {
	crds := filepath.Join(moduleDir(t, "github.com/cert-manager/cert-manager"), "deploy", "crds")
	_, plain := server(t, &envtest.Environment{CRDDirectoryPaths: []string{crds}, ErrorIfCRDPathMissing: true})
	c := client.WithFieldValidation(plain, metav1.FieldValidationStrict)
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "scale-to-zero"}}); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]values{"the chart's issuer": withCertManager(), "all": readValues(t, "testdata/all.yaml")} {
		all, created := must4(t, v), 0
		for _, o := range all {
			if o.GetObjectKind().GroupVersionKind().Group != certmanagerv1.SchemeGroupVersion.Group {
				continue
			}
			created++
			if err := c.Create(t.Context(), o.(client.Object)); err != nil {
				t.Errorf("%s: %s: %v", name, key(o), err)
			}
		}
		if created == 0 {
			t.Errorf("%s: nothing was created", name)
		}
	}
	// The server would have reported it.
	bad := only[*certmanagerv1.Certificate](must4(t, withCertManager()))[0]
	bad.Name, bad.Spec.PrivateKey.RotationPolicy = "bad", "Sometimes"
	if err := c.Create(t.Context(), bad); !apierrors.IsInvalid(err) {
		t.Errorf("a bad certificate: %v", err)
	}
}

// moduleDir is the folder in which Go keeps the sources of a module.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-json", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil || m.Dir == "" {
		t.Fatalf("module %s: %v, %s", module, err, out)
	}
	return m.Dir
}
