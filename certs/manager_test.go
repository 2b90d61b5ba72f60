// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

const (
	testNamespace = "scale-to-zero"
	testSecret    = "webhook-cert"
	testConfig    = "scale-to-zero"
	testHost      = "webhook.scale-to-zero.svc"
)

// cluster is a fake API server. Like a real one, it refuses to update a Secret from an old version.
type cluster struct {
	*fake.Clientset
	t *testing.T
}

func newCluster(t *testing.T, objects ...runtime.Object) *cluster {
	t.Helper()
	c := &cluster{Clientset: fake.NewClientset(objects...), t: t}
	version := 0 // the fake runs one reaction at a time
	secrets := schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	number := func(action clienttesting.Action) (bool, runtime.Object, error) {
		secret := action.(interface{ GetObject() runtime.Object }).GetObject().(*corev1.Secret)
		if action.GetVerb() == "update" {
			stored, err := c.Tracker().Get(secrets, secret.Namespace, secret.Name)
			if err != nil {
				return true, nil, err
			}
			if stored.(*corev1.Secret).ResourceVersion != secret.ResourceVersion {
				return true, nil, apierrors.NewConflict(secrets.GroupResource(), secret.Name, errors.New("it was modified"))
			}
		}
		version++
		secret.ResourceVersion = strconv.Itoa(version)
		return false, nil, nil
	}
	c.PrependReactor("create", "secrets", number)
	c.PrependReactor("update", "secrets", number)
	return c
}

func webhooks(bundle string) *admissionv1.MutatingWebhookConfiguration {
	path := "/mutate"
	client := admissionv1.WebhookClientConfig{
		Service:  &admissionv1.ServiceReference{Namespace: testNamespace, Name: "webhook", Path: &path},
		CABundle: []byte(bundle),
	}
	return &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: testConfig},
		Webhooks: []admissionv1.MutatingWebhook{
			{Name: "a.example.com", ClientConfig: client},
			{Name: "b.example.com", ClientConfig: client},
		},
	}
}

func (c *cluster) manager() *Manager {
	c.t.Helper()
	m, err := New(Options{
		Namespace: testNamespace, SecretName: testSecret, Service: "webhook", WebhookConfiguration: testConfig,
		Client: c, Log: funcr.New(func(_, args string) { c.t.Log(args) }, funcr.Options{}), Resync: 48 * time.Hour,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// start runs m until the test ends.
func start(t *testing.T, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Start returned %v", err)
		}
	})
	synctest.Wait()
}

// advance advances the bubble's clock, and returns when everything that was due is done.
func advance(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble it takes no time
	synctest.Wait()
}

func ensure(t *testing.T, managers ...*Manager) {
	t.Helper()
	for _, m := range managers {
		if err := m.Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *cluster) secret() *corev1.Secret {
	c.t.Helper()
	s, err := c.CoreV1().Secrets(testNamespace).Get(c.t.Context(), testSecret, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

func (c *cluster) update(change func(*corev1.Secret)) {
	c.t.Helper()
	s := c.secret()
	change(s)
	if _, err := c.CoreV1().Secrets(testNamespace).Update(c.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// bundle returns the CA with which the API server verifies the webhooks. It fails the test if the webhooks have different ones.
func (c *cluster) bundle() []byte {
	c.t.Helper()
	config, err := c.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(c.t.Context(), testConfig, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	if !published(config, config.Webhooks[0].ClientConfig.CABundle) {
		c.t.Fatal("the webhooks have different caBundles")
	}
	if config.Webhooks[1].ClientConfig.Service == nil || *config.Webhooks[1].ClientConfig.Service.Path != "/mutate" {
		c.t.Fatal("the patch changed more than the caBundle")
	}
	return config.Webhooks[0].ClientConfig.CABundle
}

func serves(t *testing.T, m *Manager) *x509.Certificate {
	t.Helper()
	cert, err := m.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf
}

func verify(bundle []byte, leaf *x509.Certificate) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return errors.New("the bundle holds no certificate")
	}
	for _, name := range []string{testHost, testHost + ".cluster.local"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: time.Now()}); err != nil {
			return fmt.Errorf("verifying for %s: %w", name, err)
		}
	}
	return nil
}

func TestNewWantsItsOptions(t *testing.T) {
	_, err := New(Options{Namespace: "n", SecretName: "s", Service: "w", Client: fake.NewClientset()})
	if err == nil || !strings.Contains(err.Error(), "WebhookConfiguration is required") {
		t.Errorf("got %v", err)
	}
	_, err = New(Options{Namespace: "n", SecretName: "s", Service: "w", WebhookConfiguration: "c"})
	if err == nil || !strings.Contains(err.Error(), "Client is required") {
		t.Errorf("got %v", err)
	}
}

func TestFirstCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "webhook", Namespace: testNamespace, UID: "u"}}
		c := newCluster(t, webhooks(""), service)
		m := c.manager()
		if err := m.ReadyCheck(nil); err == nil {
			t.Error("it is ready without a certificate")
		}
		if _, err := m.GetCertificate(nil); err == nil {
			t.Error("it serves without a certificate")
		}
		ensure(t, m)
		if err := m.ReadyCheck(nil); err != nil {
			t.Error(err)
		}
		if err := verify(c.bundle(), serves(t, m)); err != nil {
			t.Error(err)
		}
		s := c.secret()
		if s.Type != corev1.SecretTypeTLS {
			t.Errorf("the secret's type is %q", s.Type)
		}
		if len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != "u" {
			t.Errorf("the secret's owners are %v, want the service", s.OwnerReferences)
		}
		if got := time.Until(serves(t, m).NotAfter); got > leafLife {
			t.Errorf("the certificate lives %s", got)
		}
		// The served certificate comes from the Secret, so another replica serves the same.
		other := c.manager()
		ensure(t, other)
		if !serves(t, other).Equal(serves(t, m)) {
			t.Error("two replicas serve different certificates")
		}
		advance(leafLife)
		if err := m.ReadyCheck(nil); err == nil {
			t.Error("it is ready with an expired certificate")
		}
	})
}

func TestReplicasRaceToCreate(t *testing.T) {
	c := newCluster(t, webhooks(""))
	managers := make([]*Manager, 8)
	var all sync.WaitGroup
	for i := range managers {
		managers[i] = c.manager()
		all.Go(func() {
			if err := managers[i].Ensure(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, m := range managers {
		if !serves(t, m).Equal(serves(t, managers[0])) {
			t.Fatal("two replicas serve different certificates")
		}
		if err := verify(c.bundle(), serves(t, m)); err != nil {
			t.Error(err)
		}
	}
}

func TestReplicasRaceToRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, webhooks(""))
		managers := []*Manager{c.manager(), c.manager(), c.manager()}
		ensure(t, managers...)
		first := serves(t, managers[0])
		for _, m := range managers {
			start(t, m)
		}
		advance(leafLife*2/3 - time.Hour)
		if !serves(t, managers[0]).Equal(first) {
			t.Fatal("the certificate was renewed before two thirds of its life")
		}
		advance(2 * time.Hour)
		renewed := serves(t, managers[0])
		if renewed.Equal(first) {
			t.Fatal("the certificate was not renewed after two thirds of its life")
		}
		for _, m := range managers {
			if !serves(t, m).Equal(renewed) {
				t.Error("two replicas serve different certificates")
			}
		}
		if updates := c.count("update", "secrets"); updates < 1 {
			t.Errorf("%d updates", updates)
		}
	})
}

func (c *cluster) count(verb, resource string) int {
	n := 0
	for _, a := range c.Actions() {
		if a.Matches(verb, resource) {
			n++
		}
	}
	return n
}

// This is what an API server sees in six years. Each certificate that any replica serves verifies with the published caBundle, and
// with the one of a while ago, in case the API server lags behind.
func TestEveryCertificateVerifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, webhooks(""))
		managers := []*Manager{c.manager(), c.manager()}
		ensure(t, managers...)
		for _, m := range managers {
			m.Log = m.Log.V(1) // there are many lines
			start(t, m)
		}
		const fine, coarse = 20 * time.Minute, 48 * time.Hour
		begin, previous, sawBoth := time.Now(), c.bundle(), false
		authorities := map[string]bool{}
		for age := time.Duration(0); age < authorityLife+authorityOverlap; age = time.Since(begin) {
			step := coarse
			if toRotation := authorityLife - authorityOverlap - age; toRotation < 72*time.Hour && toRotation > -48*time.Hour {
				step = fine
			}
			advance(step)
			bundle := c.bundle()
			parsed, err := parseAuthorities(bundle)
			if err != nil {
				t.Fatal(err)
			}
			sawBoth = sawBoth || len(parsed) == 2
			authorities[string(parsed[0].Raw)] = true
			for _, m := range managers {
				leaf := serves(t, m)
				if err := verify(bundle, leaf); err != nil {
					t.Fatalf("after %s: %v", age, err)
				}
				if err := verify(previous, leaf); step == fine && err != nil {
					t.Fatalf("after %s, with the bundle before: %v", age, err)
				}
				assertOutlived(t, leaf, parsed)
			}
			previous = bundle
		}
		if !sawBoth || len(authorities) != 2 {
			t.Errorf("saw %d authorities in turn, and two at once: %t", len(authorities), sawBoth)
		}
		if parsed, err := parseAuthorities(c.bundle()); err != nil || len(parsed) > 2 {
			t.Errorf("%d authorities are left in the bundle: %v", len(parsed), err)
		}
	})
}

func assertOutlived(t *testing.T, leaf *x509.Certificate, authorities []*x509.Certificate) {
	t.Helper()
	for _, a := range authorities {
		if leaf.CheckSignatureFrom(a) == nil {
			if leaf.NotAfter.After(a.NotAfter) {
				t.Fatalf("the certificate ends %s, its authority %s", leaf.NotAfter, a.NotAfter)
			}
			return
		}
	}
	t.Fatal("no authority signed the certificate")
}

func TestBadSecretIsRegenerated(t *testing.T) {
	otherNames := []string{"other.example.com"}
	foreign, err := newIdentity(nil, otherNames, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreignData, err := foreign.data()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*corev1.Secret)
		reason string
	}{
		"empty":             {func(s *corev1.Secret) { s.Data = nil }, "reading ca.crt: it is missing or empty"},
		"garbled bundle":    {func(s *corev1.Secret) { s.Data[keyBundle] = []byte("x") }, "reading ca.crt: it is not PEM"},
		"garbled CA key":    {func(s *corev1.Secret) { s.Data[keyAuthorityKey] = []byte("x") }, "reading ca.key: it is missing or not PEM"},
		"leaf as authority": {func(s *corev1.Secret) { s.Data[keyBundle] = s.Data[keyLeaf] }, "is not an authority's"},
		"foreign CA key":    {func(s *corev1.Secret) { s.Data[keyAuthorityKey] = foreignData[keyAuthorityKey] }, "is not the key of the first"},
		"garbled leaf":      {func(s *corev1.Secret) { s.Data[keyLeaf] = []byte("x") }, "reading tls.crt and tls.key"},
		"foreign leaf key":  {func(s *corev1.Secret) { s.Data[keyLeafKey] = foreignData[keyLeafKey] }, "reading tls.crt and tls.key"},
		"foreign leaf": {func(s *corev1.Secret) {
			s.Data[keyLeaf], s.Data[keyLeafKey] = foreignData[keyLeaf], foreignData[keyLeafKey]
		}, "verifying tls.crt"},
		"foreign everything": {func(s *corev1.Secret) { s.Data = foreignData }, "verifying tls.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webhooks(""))
			m := c.manager()
			ensure(t, m)
			c.update(tc.change)
			var log strings.Builder
			m.Log = funcr.New(func(_, args string) { log.WriteString(args) }, funcr.Options{})
			ensure(t, m)
			if err := verify(c.bundle(), serves(t, m)); err != nil {
				t.Error(err)
			}
			if !strings.Contains(log.String(), tc.reason) {
				t.Errorf("the log tells %s, want it to tell %q", log.String(), tc.reason)
			}
			before := c.count("update", "secrets")
			ensure(t, m)
			if after := c.count("update", "secrets"); after != before {
				t.Error("what it wrote was not good enough for itself")
			}
		})
	}
}

// The other replica serves a leaf of the authority whose key is lost until it learns of the new one.
func TestLostSecretKeepsItsAuthorityTrusted(t *testing.T) {
	c := newCluster(t, webhooks(""))
	m, slow := c.manager(), c.manager()
	ensure(t, m, slow)
	for range 5 {
		if err := c.CoreV1().Secrets(testNamespace).Delete(t.Context(), testSecret, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		before := serves(t, m)
		ensure(t, m)
		if serves(t, m).Equal(before) {
			t.Fatal("the lost certificate is still served")
		}
		for _, leaf := range []*x509.Certificate{before, serves(t, m)} {
			if err := verify(c.bundle(), leaf); err != nil {
				t.Error(err)
			}
		}
	}
	if got, err := parseAuthorities(c.bundle()); err != nil || len(got) != 1+maxPredecessors {
		t.Errorf("%d authorities in the bundle, %v", len(got), err)
	}
}

func TestForeignBundleIsReplaced(t *testing.T) {
	c := newCluster(t, webhooks("Cg=="))
	m := c.manager()
	ensure(t, m)
	if err := verify(c.bundle(), serves(t, m)); err != nil {
		t.Error(err)
	}
}

func TestBundleIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, webhooks(""))
		m := c.manager()
		ensure(t, m)
		start(t, m)
		want := string(c.bundle())
		configs := c.AdmissionregistrationV1().MutatingWebhookConfigurations()
		if _, err := configs.Update(t.Context(), webhooks(""), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := string(c.bundle()); got != want {
			t.Errorf("after it was wiped the bundle is %q", got)
		}
		if err := configs.Delete(t.Context(), testConfig, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := configs.Create(t.Context(), webhooks("x"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := string(c.bundle()); got != want {
			t.Errorf("after it was created anew the bundle is %q", got)
		}
	})
}

// A certificate that the API server does not trust yet is not served as long as there is another one.
func TestServesTheOldUntilTheNewIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, webhooks(""))
		m := c.manager()
		ensure(t, m)
		before := serves(t, m)
		var refuse atomic.Bool
		refuse.Store(true)
		c.PrependReactor("patch", "mutatingwebhookconfigurations", func(clienttesting.Action) (bool, runtime.Object, error) {
			return refuse.Load(), nil, errors.New("no")
		})
		start(t, m)
		if err := c.CoreV1().Secrets(testNamespace).Delete(t.Context(), testSecret, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		advance(time.Minute)
		if !serves(t, m).Equal(before) {
			t.Error("a certificate is served that the API server cannot verify")
		}
		refuse.Store(false)
		advance(time.Minute)
		if serves(t, m).Equal(before) {
			t.Error("the new certificate is not served")
		}
	})
}

func TestEnsureGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("no route to host")
		})
		begin := time.Now()
		err := c.manager().Ensure(t.Context())
		if err == nil || !strings.Contains(err.Error(), "tried 10 times") || !strings.Contains(err.Error(), "no route to host") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("it took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.manager().Ensure(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestEnsureNeedsNoWebhookConfiguration(t *testing.T) {
	c := newCluster(t)
	m := c.manager()
	ensure(t, m)
	if serves(t, m) == nil {
		t.Error("there is no certificate")
	}
}
