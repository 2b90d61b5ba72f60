// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// door is how visitors from outside the cluster reach an app: a URL that the ingress controller serves.
type door struct {
	*airflow
	scheme, host string
	flags        []string // for `app get`: the ingress controller's address
}

// newDoor has a host name of its own for the app: all tests share one ingress controller.
func newDoor(a *airflow, scheme, port string, flags ...string) door {
	flags = append(flags, "-connect", os.Getenv("E2E_TRAEFIK")+":"+port)
	return door{airflow: a, scheme: scheme, host: doorHost(a), flags: flags}
}

func doorHost(a *airflow) string { return a.ns + ".example.com" }

func needTraefik(t *testing.T) {
	t.Helper()
	if os.Getenv("E2E_TRAEFIK") == "" {
		t.Skip("E2E_TRAEFIK is empty")
	}
}

// request returns the arguments for `app get` to send n requests, one after the other, over one connection.
func (d door) request(n int, path string) []string {
	return append(slices.Clone(d.flags), "-n", fmt.Sprint(n), d.scheme+"://"+d.host+path)
}

// opens waits until the ingress controller routes to the app, which is not opted in yet.
func (d door) opens() {
	d.t.Helper()
	eventually(d.t, "the ingress controller routes to the app", func() error {
		got, err := tryGet(d.t.Context(), d.request(1, "/echo")...)
		if err == nil && got[0].Status != 200 {
			err = fmt.Errorf("status %d: %s", got[0].Status, got[0].Body)
		}
		return err
	})
}

// leaves waits until the ingress controller no longer connects to these pods. It reads a Service's endpoints itself, and
// may load changes up to two seconds late: too late for an app that falls asleep earlier.
func (d door) leaves(pods []string) {
	d.t.Helper()
	eventually(d.t, "the ingress controller has left the pods", func() error {
		got, err := tryGet(d.t.Context(), "http://"+os.Getenv("E2E_TRAEFIK")+":8080/api/http/services?search="+d.ns)
		if err != nil {
			return err
		}
		if len(pods) == 0 || got[0].Status != 200 || !strings.Contains(got[0].Body, d.ns) {
			return fmt.Errorf("of pods %v it says: status %d: %s", pods, got[0].Status, got[0].Body)
		}
		for _, ip := range pods {
			if strings.Contains(got[0].Body, ip+":") {
				return errors.New(got[0].Body)
			}
		}
		return nil
	})
}

// wakes sends a request to the sleeping app, and another as soon as it has answered.
func (d door) wakes() {
	d.t.Helper()
	answers := get(d.t, d.request(2, "/echo?x=1%2F2")...)
	if len(answers) != 2 {
		d.t.Fatalf("%d answers: %+v", len(answers), answers)
	}
	var apps []string
	for i, got := range answers {
		var echo struct {
			App, Host, Path string
			Query, Headers  map[string][]string
		}
		if err := json.Unmarshal([]byte(got.Body), &echo); err != nil || got.Status != 200 {
			d.t.Fatalf("request %d: status %d, body %q: %v", i, got.Status, got.Body, err)
		}
		forwarded := func(what string) string { return strings.Join(echo.Headers["X-Forwarded-"+what], ",") }
		if echo.Host != d.host || echo.Path != "/echo" || echo.Query["x"][0] != "1/2" || forwarded("Host") != d.host ||
			forwarded("Proto") != d.scheme {
			d.t.Errorf("request %d: the app was asked otherwise: %+v", i, echo)
		}
		apps = append(apps, echo.App)
	}
	if apps[0] != apps[1] || !strings.HasPrefix(apps[0], webserver+"-") {
		d.t.Errorf("the answers are from %q", apps)
	}
}

// cycle opts the app in and visits it through the door, asleep and awake, twice.
func (d door) cycle() {
	d.t.Helper()
	d.opens()
	pods := d.podIPs()
	d.optIn()
	d.leaves(pods)
	for range 2 {
		d.asleep()
		d.wakes()
	}
	d.asleep()
	if got := d.events("Service", webserver); count(got, "WakeRequested") != 2 {
		d.t.Errorf("it was not woken twice: %q", got)
	}
}

// withIngress makes the app's chart create the Ingress, as its users would.
func withIngress(a *airflow, values ...string) (spec func() networkingv1.IngressSpec) {
	a.t.Helper()
	a.upgrade(append([]string{
		"--reuse-values", "--set", "ingress.web.enabled=true", "--set", "ingress.web.ingressClassName=traefik",
		"--set", "ingress.web.hosts[0].name=" + doorHost(a),
	}, values...)...)
	return func() networkingv1.IngressSpec {
		var i networkingv1.Ingress
		a.get("airflow-ingress", &i)
		return i.Spec
	}
}

// TestIngress sends the requests through an ingress controller.
func TestIngress(t *testing.T) {
	needTraefik(t)
	t.Parallel()
	a := newAirflow(t, "HELM")
	spec := withIngress(a)
	before := spec()
	d := newDoor(a, "http", "80")
	d.cycle()
	if got := get(t, append(slices.Clone(d.flags), "http://not-"+d.host+"/echo")...)[0]; got.Status != 404 {
		t.Errorf("another host: status %d: %s", got.Status, got.Body)
	}
	if n := *a.deployment().Spec.Replicas; n != 0 {
		t.Errorf("a request for another host woke it: %d replicas", n)
	}
	if diff := cmp.Diff(before, spec()); diff != "" {
		t.Errorf("the Ingress changed (-before +after):\n%s", diff)
	}
}

// TestIngressTLS: the ingress controller terminates TLS, with a certificate of the app's owner.
func TestIngressTLS(t *testing.T) {
	needTraefik(t)
	t.Parallel()
	a := newAirflow(t, "HELM")
	certificate, key := selfSigned(t, doorHost(a))
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.ns, Name: "airflow-tls"},
		Type:       corev1.SecretTypeTLS,
		Data:       map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key},
	}
	if err := kube.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	spec := withIngress(a, "--set", "ingress.web.hosts[0].tls.enabled=true", "--set", "ingress.web.hosts[0].tls.secretName="+secret.Name)
	before := spec()
	newDoor(a, "https", "443", "-ca", string(certificate)).cycle()
	if diff := cmp.Diff(before, spec()); diff != "" {
		t.Errorf("the Ingress changed (-before +after):\n%s", diff)
	}
}

// TestGateway uses a Gateway and an HTTPRoute in place of the Ingress.
func TestGateway(t *testing.T) {
	needTraefik(t)
	t.Parallel()
	a := newAirflow(t, "HELM")
	gateway := gatewayAPI(a, "Gateway", map[string]any{
		"gatewayClassName": "traefik",
		"listeners":        []any{map[string]any{"name": "web", "protocol": "HTTP", "port": int64(80)}},
	})
	route := gatewayAPI(a, "HTTPRoute", map[string]any{
		"parentRefs": []any{map[string]any{"name": gateway.GetName()}},
		"hostnames":  []any{doorHost(a)},
		"rules": []any{map[string]any{
			"matches":     []any{map[string]any{"path": map[string]any{"type": "PathPrefix", "value": "/echo"}}},
			"backendRefs": []any{map[string]any{"name": webserver, "port": int64(8080)}},
		}},
	})
	d := newDoor(a, "http", "80")
	d.cycle()
	if got := get(t, d.request(1, "/elsewhere")...)[0]; got.Status != 404 {
		t.Errorf("another path: status %d: %s", got.Status, got.Body)
	}
	for _, before := range []*unstructured.Unstructured{gateway, route} {
		after := &unstructured.Unstructured{}
		after.SetGroupVersionKind(before.GroupVersionKind())
		a.get(before.GetName(), after)
		if diff := cmp.Diff(before.Object["spec"], after.Object["spec"]); diff != "" {
			t.Errorf("the %s changed (-before +after):\n%s", before.GetKind(), diff)
		}
	}
}

// gatewayAPI makes an object of the Gateway API, whose Go module is not worth a dependency.
func gatewayAPI(a *airflow, kind string, spec map[string]any) *unstructured.Unstructured {
	a.t.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: kind})
	o.SetNamespace(a.ns)
	o.SetName("airflow")
	if err := kube.Create(a.t.Context(), o); err != nil {
		a.t.Fatal(err)
	}
	return o
}

// selfSigned returns a certificate for the host and its key, as PEM.
func selfSigned(t *testing.T, host string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// TestIngressAlone opts in only the Ingress: its visitors wake the app, callers of the Service do not. The chart's owner
// edits it meanwhile, and removes the label while the app sleeps and visitors come.
func TestIngressAlone(t *testing.T) {
	needTraefik(t)
	t.Parallel()
	a := newAirflow(t, "HELM", "--set", "webserver.replicas=2")
	spec := withIngress(a)
	d := newDoor(a, "http", "80")
	d.opens()
	pods := d.podIPs()
	backend := func() string {
		t.Helper()
		return spec().Rules[0].HTTP.Paths[0].Backend.Service.Name
	}
	leadsTo := func(want string) {
		t.Helper()
		eventually(t, "the Ingress has the backend "+want, func() error {
			if got := backend(); got != want {
				return fmt.Errorf("its backend is %s; events: %q", got, a.events("Service", webserver))
			}
			return nil
		})
	}
	kubectl(t, "label", "ingress", "-n", a.ns, "airflow-ingress", "scale-to-zero=true")
	const alias = webserver + "-scale-to-zero"
	leadsTo(alias)
	d.leaves(pods)
	for range 2 {
		a.asleep()
		d.wakes()
	}
	if s := a.service(); s.Spec.Selector["scale-to-zero/intercepted"] != "" {
		t.Errorf("the Service was injected: selector %v", s.Spec.Selector)
	}
	a.asleep()
	// Each interceptor that a wake's requests reach says so.
	woken := count(a.events("Service", webserver), "WakeRequested")
	eventually(t, "a call of the Service finds no pod", func() error { // kube-proxy uses terminating pods if there are no others
		if got, err := tryGet(t.Context(), "-timeout", "3s", a.url("/echo")); err == nil {
			return fmt.Errorf("status %d", got[0].Status)
		}
		return nil
	})
	if got := count(a.events("Service", webserver), "WakeRequested"); woken < 2 || got != woken {
		t.Errorf("it was woken %d times before a call of the Service, and %d times after", woken, got)
	}

	a.upgrade("--reuse-values", "--set", "ingress.web.hosts[0].name="+d.host, "--set", "ingress.web.hosts[1].name=also-"+d.host)
	if got := spec(); len(got.Rules) != 2 || got.Rules[1].Host != "also-"+d.host || backend() != alias {
		t.Errorf("after an edit by its chart: %+v", got.Rules)
	}
	a.asleep()

	done := background(t, append(slices.Clone(d.flags), "-n", "200", "-c", "2", d.scheme+"://"+d.host+"/slow?for=100ms")...)
	kubectl(t, "label", "ingress", "-n", a.ns, "airflow-ingress", "scale-to-zero-")
	leadsTo(webserver)
	for _, one := range <-done {
		if one.Status != 200 {
			t.Errorf("on the way back: status %d: %s", one.Status, one.Body)
		}
	}
	eventually(t, "nothing is left", a.remains)
	if n := *a.deployment().Spec.Replicas; n != 2 {
		t.Errorf("%d replicas, want 2", n)
	}
}
