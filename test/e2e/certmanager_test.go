// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	servingCertificate = release + "-webhook-tls"
	caCertificate      = release + "-webhook-ca"
)

// TestCertManager: a real cert-manager makes, injects and renews the webhook's certificate, while the API server needs
// the webhook all the time. It is not parallel to the other tests, which continue with our own certificate.
func TestCertManager(t *testing.T) {
	if _, err := kube.RESTMapper().RESTMapping(schema.GroupKind{Group: "cert-manager.io", Kind: "Certificate"}, "v1"); err != nil {
		t.Skip("cert-manager is not in this cluster")
	}
	a := newAirflow(t, "HELM")
	t.Cleanup(func() {
		if err := install(context.Background()); err != nil { // the test's own context has ended
			t.Error(err)
		}
	})
	if err := install(t.Context(), "--set", "certs.mode=cert-manager"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the webhook configuration has cert-manager's CA", func() error {
		if err := trusted(t); err != nil {
			return err
		}
		return admitted(t.Context(), a)
	})
	a.optIn()
	a.asleep()

	stop := watchAdmission(t, a)
	defer stop()
	first, oldCA := renewed(t, servingCertificate), secretKey(t, servingCertificate, "ca.crt")
	renewed(t, caCertificate)
	second, newCA := renewed(t, servingCertificate), secretKey(t, servingCertificate, "ca.crt")
	if bytes.Equal(oldCA, newCA) {
		t.Error("the CA was not renewed")
	}
	eventually(t, "the webhook configuration has the renewed CA", func() error { return trusted(t) })
	for name, tc := range map[string]struct {
		served *x509.Certificate
		bundle []byte
	}{
		"an API server that knows only the new CA meets a replica with the old certificate": {first, newCA},
		"an API server that knows only the old CA meets a replica with the new certificate": {second, oldCA},
	} {
		if err := verified(tc.served, tc.bundle); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop()

	if got := get(t, a.url("/echo"))[0]; got.Status != 200 {
		t.Errorf("status %d: %s", got.Status, got.Body)
	}
	must(t, os.Getenv("HELM"), "uninstall", release, "-n", release, "--wait", "--timeout", "3m")
	if err := a.remains(); err != nil {
		t.Error(err)
	}
	nothingLeft(t,
		"all,secrets,roles,rolebindings,leases,issuers.cert-manager.io,certificates.cert-manager.io,certificaterequests.cert-manager.io")
}

// admitted checks that the API server calls the webhook: only the webhook denies this annotation.
func admitted(ctx context.Context, a *airflow) error {
	err := kube.Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: a.ns, Name: "probe", Labels: map[string]string{"scale-to-zero": "true"},
			Annotations: map[string]string{"scale-to-zero/cooldown": "soon"},
		},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}, Selector: map[string]string{"app": "probe"}},
	}, client.DryRunAll)
	if err == nil {
		return errors.New("the API server goes on without the webhook")
	}
	if !strings.Contains(err.Error(), `"soon"`) {
		return err
	}
	return nil
}

// watchAdmission fails the test if the API server goes on without the webhook even once before stop.
func watchAdmission(t *testing.T, a *airflow) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				t.Logf("the webhook was asked %d times", n)
				return
			case <-tick.C:
			}
			if err := admitted(ctx, a); err != nil && ctx.Err() == nil {
				t.Errorf("at time %d: %v", n, err)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// renewed has cert-manager renew a Certificate, as `cmctl renew` does, and returns the new certificate. If it is a
// serving one, renewed waits until every replica that served another serves it.
func renewed(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	pods := controllers(t)
	before := secretKey(t, name, "tls.crt")
	certificate := &unstructured.Unstructured{}
	certificate.SetAPIVersion("cert-manager.io/v1")
	certificate.SetKind("Certificate")
	certificate.SetNamespace(release)
	certificate.SetName(name)
	patch := client.RawPatch("application/json-patch+json", []byte(`[{"op": "add", "path": "/status/conditions/-", "value":
		{"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by a test",
		"lastTransitionTime": "2026-01-01T00:00:00Z"}}]`))
	if err := kube.Status().Patch(t.Context(), certificate, patch); err != nil {
		t.Fatal(err)
	}
	eventually(t, "cert-manager renews "+name, func() error {
		if bytes.Equal(secretKey(t, name, "tls.crt"), before) {
			return errors.New("the secret has the certificate of before")
		}
		return nil
	})
	pair, err := tls.X509KeyPair(secretKey(t, name, "tls.crt"), secretKey(t, name, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	if name != servingCertificate {
		return pair.Leaf
	}
	for _, pod := range pods {
		eventually(t, pod+" serves the renewed certificate", func() error {
			if got := served(t, pod); !got.Equal(pair.Leaf) {
				return fmt.Errorf("it serves the one until %s, want the one until %s", got.NotAfter, pair.Leaf.NotAfter)
			}
			return nil
		})
	}
	if now := controllers(t); strings.Join(now, " ") != strings.Join(pods, " ") {
		t.Errorf("the controllers were %v and are %v", pods, now)
	}
	return pair.Leaf
}

// controllers returns the controllers' pods with their restart counts.
func controllers(t *testing.T) []string {
	t.Helper()
	var list corev1.PodList
	err := kube.List(t.Context(), &list, client.InNamespace(release), client.MatchingLabels{"app.kubernetes.io/component": "controller"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range list.Items {
		if p.DeletionTimestamp.IsZero() {
			names = append(names, p.Name)
			if n := p.Status.ContainerStatuses[0].RestartCount; n > 0 {
				t.Errorf("%s was restarted %d times", p.Name, n)
			}
		}
	}
	if len(names) == 0 {
		t.Fatal("there are no controllers")
	}
	return names
}

// served returns the certificate that a controller's pod serves.
func served(t *testing.T, pod string) *x509.Certificate {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := exec.CommandContext(ctx, os.Getenv("KUBECTL"), "port-forward", "-n", release, "pod/"+pod, ":webhook", "--address=127.0.0.1")
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = c.Wait() }() // it is killed, and reports that
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := strings.Fields(strings.TrimPrefix(line, "Forwarding from "))[0]
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
}

// verified verifies a certificate as an API server does.
func verified(leaf *x509.Certificate, bundle []byte) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("the bundle holds no certificate")
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: release + "-webhook." + release + ".svc"})
	return err
}

// trusted reports whether the caBundle has the CA of the Secret. The cainjector keeps earlier CAs in it.
func trusted(t *testing.T) error {
	t.Helper()
	var config admissionv1.MutatingWebhookConfiguration
	if err := kube.Get(t.Context(), client.ObjectKey{Name: release}, &config); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(config.Webhooks[0].ClientConfig.CABundle, bytes.TrimSpace(secretKey(t, servingCertificate, "ca.crt"))) {
		return fmt.Errorf("the caBundle is %s", config.Webhooks[0].ClientConfig.CABundle)
	}
	return nil
}

func secretKey(t *testing.T, name, key string) []byte {
	t.Helper()
	var s corev1.Secret
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: release, Name: name}, &s); err != nil {
		t.Fatal(err)
	}
	return s.Data[key]
}
