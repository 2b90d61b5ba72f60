// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// issuer issues certificates like an issuer of cert-manager. Its methods panic, so that a fuzz test can use it.
type issuer struct {
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	parent *issuer // nil for a root
}

func newIssuer(parent *issuer) *issuer {
	i := &issuer{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), parent: parent}
	i.renew()
	return i
}

// renew gives the issuer a new certificate for the same key.
func (i *issuer) renew() {
	template := &x509.Certificate{
		SerialNumber: must(serialNumber()), Subject: pkix.Name{CommonName: "a CA"},
		NotBefore: time.Now(), NotAfter: time.Now().Add(5 * 365 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	if i.parent == nil {
		i.cert = must(sign(template, template, i.key.Public(), i.key))
		return
	}
	template.Subject.CommonName = "an intermediate CA"
	i.cert = must(sign(template, i.parent.cert, i.key.Public(), i.parent.key))
}

// issue returns a Secret's data: a leaf with its chain, its key and the root.
func (i *issuer) issue(host string, life time.Duration) map[string][]byte {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := must(sign(&x509.Certificate{
		SerialNumber: must(serialNumber()), DNSNames: []string{host}, NotBefore: time.Now(), NotAfter: time.Now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, i.cert, key.Public(), i.key))
	chain, root := encodeCert(leaf), i
	for ; root.parent != nil; root = root.parent {
		chain = append(chain, encodeCert(root.cert)...)
	}
	return map[string][]byte{keyLeaf: chain, keyLeafKey: must(encodeKey(key)), keyBundle: encodeCert(root.cert)}
}

func encodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: c.Raw})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// log collects log lines.
type log struct {
	mu    sync.Mutex // protects lines
	lines []string
}

func (l *log) add(_, args string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, args)
}

// take returns the lines since the last call.
func (l *log) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// reader returns a Manager in a cluster that has these objects of cert-manager.
func (c *cluster) reader(objects ...client.Object) (*Manager, *log) {
	c.t.Helper()
	l := &log{}
	m, err := New(Options{
		Mode: ModeCertManager, Namespace: testNamespace, SecretName: testSecret, Service: "webhook",
		Client: c, Reader: certManagerWith(c.t, objects...), Log: funcr.New(l.add, funcr.Options{}),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return m, l
}

// issued stores a Secret as cert-manager does.
func (c *cluster) issued(data map[string][]byte) {
	c.t.Helper()
	_, err := c.CoreV1().Secrets(testNamespace).Create(c.t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: testSecret}, Type: corev1.SecretTypeTLS, Data: data,
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
}

func assertLine(t *testing.T, got []string, parts ...string) {
	t.Helper()
	if len(got) != 1 {
		t.Fatalf("%d log lines, want one: %q", len(got), got)
	}
	for _, part := range parts {
		if !strings.Contains(got[0], part) {
			t.Errorf("the log says %s, want it to say %q", got[0], part)
		}
	}
}

func TestParseMode(t *testing.T) {
	for _, ok := range []Mode{ModeSelf, ModeCertManager} {
		if got, err := ParseMode(string(ok)); got != ok || err != nil {
			t.Errorf("%s: %q, %v", ok, got, err)
		}
	}
	if _, err := New(Options{Mode: "selv"}); err == nil || !strings.Contains(err.Error(), `"selv"; allowed are self and cert-manager`) {
		t.Errorf("got %v", err)
	}
}

// Before the Secret exists, the pod is up but not ready, and has logged why. It writes nothing, and of core Kubernetes it reads only
// the Secret: its role allows no more.
func TestWaitsForCertManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, webhooks("x"))
		m, log := c.reader()
		ensure(t, m)
		start(t, m)
		advance(3 * time.Hour)
		if err := m.ReadyCheck(nil); err == nil {
			t.Error("it is ready without a certificate")
		}
		if _, err := m.GetCertificate(nil); err == nil {
			t.Error("it serves without a certificate")
		}
		assertLine(t, log.take(), "Waiting for cert-manager", testNamespace+"/"+testSecret, "nothing")
		if writes := slices.DeleteFunc(c.Actions(), func(a clienttesting.Action) bool {
			return slices.Contains([]string{"get", "list", "watch"}, a.GetVerb()) && a.GetResource().Resource == "secrets"
		}); len(writes) > 0 {
			t.Errorf("unexpected calls: %v", writes)
		}

		data := newIssuer(nil).issue(testHost, leafLife)
		c.issued(data)
		synctest.Wait()
		if err := m.ReadyCheck(nil); err != nil {
			t.Error(err)
		}
		assertLine(t, log.take(), "Serving the webhook's certificate from cert-manager", testNamespace+"/"+testSecret)
		if !serves(t, m).Equal(must(parseIssued(data, testHost, time.Now())).Leaf) {
			t.Error("something else is served than what the secret holds")
		}
		if got := string(c.bundle()); got != "x" {
			t.Errorf("it changed the caBundle to %q", got)
		}
	})
}

func TestFollowsRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ca := newCluster(t), newIssuer(nil)
		c.issued(ca.issue(testHost, leafLife))
		m, log := c.reader()
		other, _ := c.reader()
		m.Resync, other.Resync = 48*time.Hour, 48*time.Hour // the test takes months
		ensure(t, m, other)
		start(t, m)
		start(t, other)
		log.take()
		for range 3 {
			advance(leafLife * 2 / 3)
			before := serves(t, m)
			c.update(func(s *corev1.Secret) { s.Data = ca.issue(testHost, leafLife) })
			synctest.Wait()
			if serves(t, m).Equal(before) {
				t.Error("the certificate of before is still served")
			}
			if !serves(t, m).Equal(serves(t, other)) {
				t.Error("two replicas serve different certificates")
			}
			assertLine(t, log.take(), "Serving the webhook's certificate from cert-manager")
		}
		advance(leafLife)
		if err := m.ReadyCheck(nil); err == nil {
			t.Error("it is ready with an expired certificate")
		}
		assertLine(t, log.take(), "tls.crt expired at")
	})
}

// The API server and a replica never learn of a renewal at the same moment. If the CA keeps its key, as in the chart, either may be
// first. If the key is new, neither may be.
func TestRenewalOfTheCA(t *testing.T) {
	leaf := func(data map[string][]byte) *x509.Certificate {
		return must(parseIssued(data, testHost, time.Now())).Leaf
	}
	accepts := func(data map[string][]byte, leaf *x509.Certificate) bool {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(data[keyBundle])
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: testHost})
		return err == nil
	}
	ca := newIssuer(nil)
	before := ca.issue(testHost, leafLife)
	ca.renew()
	kept := ca.issue(testHost, leafLife)
	changed := newIssuer(nil).issue(testHost, leafLife)
	if string(before[keyBundle]) == string(kept[keyBundle]) {
		t.Fatal("the CA was not renewed")
	}
	if !accepts(kept, leaf(before)) || !accepts(before, leaf(kept)) {
		t.Error("with the key kept, a certificate of one CA is not accepted with the other")
	}
	if accepts(changed, leaf(before)) || accepts(before, leaf(changed)) {
		t.Error("with another key, a certificate of one CA is accepted with the other")
	}
}

func TestBadSecretOfCertManager(t *testing.T) {
	foreign := newIssuer(nil).issue(testHost, leafLife)
	for name, tc := range map[string]struct {
		change func(*corev1.Secret)
		want   string
	}{
		"empty":  {func(s *corev1.Secret) { s.Data = nil }, "tls.crt is missing or empty"},
		"no key": {func(s *corev1.Secret) { delete(s.Data, keyLeafKey) }, "tls.key is missing or empty"},
		"no CA":  {func(s *corev1.Secret) { s.Data[keyBundle] = nil }, "ca.crt is missing or empty"},
		"garbled leaf": {
			func(s *corev1.Secret) { s.Data[keyLeaf] = []byte("x") },
			"reading tls.crt and tls.key: tls: failed to find any PEM data in certificate",
		},
		"garbled key": {
			func(s *corev1.Secret) { s.Data[keyLeafKey] = []byte("x") },
			"reading tls.crt and tls.key: tls: failed to find any PEM data in key",
		},
		"foreign key":  {func(s *corev1.Secret) { s.Data[keyLeafKey] = foreign[keyLeafKey] }, "private key does not match public key"},
		"garbled CA":   {func(s *corev1.Secret) { s.Data[keyBundle] = []byte("x") }, "ca.crt contains no certificate"},
		"foreign CA":   {func(s *corev1.Secret) { s.Data[keyBundle] = foreign[keyBundle] }, "verifying tls.crt with ca.crt"},
		"another name": {func(s *corev1.Secret) { s.Data = newIssuer(nil).issue("other.example.com", leafLife) }, "not " + testHost},
		"expired":      {func(s *corev1.Secret) { s.Data = newIssuer(nil).issue(testHost, -time.Second) }, "tls.crt expired at"},
		"no certificate": {
			func(s *corev1.Secret) { s.Data[keyLeaf] = append(s.Data[keyLeaf], badCertificate()...) },
			"reading the chain in tls.crt",
		},
		"gone": {nil, "Waiting for cert-manager"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				c.issued(newIssuer(nil).issue(testHost, leafLife))
				m, log := c.reader()
				ensure(t, m)
				start(t, m)
				before := serves(t, m)
				log.take()
				if tc.change != nil {
					c.update(tc.change)
				} else if err := c.CoreV1().Secrets(testNamespace).Delete(t.Context(), testSecret, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				advance(time.Hour)
				assertLine(t, log.take(), tc.want, testNamespace+"/"+testSecret, "the previous one, which expires at ")
				if !serves(t, m).Equal(before) || m.ReadyCheck(nil) != nil {
					t.Error("the certificate of before is not served any more")
				}
				fresh, freshLog := c.reader()
				ensure(t, fresh)
				assertLine(t, freshLog.take(), tc.want, testNamespace+"/"+testSecret, "nothing")
				if fresh.ReadyCheck(nil) == nil {
					t.Error("a replica that starts now is ready")
				}

				repaired := newIssuer(nil).issue(testHost, leafLife)
				if tc.change == nil {
					c.issued(repaired)
				} else {
					c.update(func(s *corev1.Secret) { s.Data = repaired })
				}
				synctest.Wait()
				assertLine(t, log.take(), "Serving the webhook's certificate from cert-manager")
				if serves(t, m).Equal(before) {
					t.Error("what repairs it is not served")
				}
			})
		})
	}
}

func badCertificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: []byte("x")})
}

func TestParseIssuedAcceptsWhatAnAPIServerDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // so that the clock stands still
		now, root := time.Now(), newIssuer(nil)
		for name, tc := range map[string]struct {
			data map[string][]byte
			now  time.Time
			want bool
		}{
			"a root":                {root.issue(testHost, leafLife), now, true},
			"an intermediate":       {newIssuer(root).issue(testHost, leafLife), now, true},
			"a wildcard":            {root.issue("*.scale-to-zero.svc", leafLife), now, true},
			"a clock that is ahead": {root.issue(testHost, leafLife), now.Add(-skew), true},
			"another time":          {root.issue(testHost, leafLife), now.Add(-2 * skew), false},
		} {
			if _, err := parseIssued(tc.data, testHost, tc.now); (err == nil) != tc.want {
				t.Errorf("%s: %v", name, err)
			}
		}
		withoutChain := newIssuer(root).issue(testHost, leafLife)
		block, _ := pem.Decode(withoutChain[keyLeaf])
		withoutChain[keyLeaf] = pem.EncodeToMemory(block)
		if _, err := parseIssued(withoutChain, testHost, now); err == nil {
			t.Error("a certificate is accepted whose chain is missing")
		}
	})
}

func TestUnreachableSecretIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("forbidden")
		})
		m, _ := c.reader()
		want := "reading secret " + testNamespace + "/" + testSecret + ": forbidden"
		if err := m.Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v", err)
		}
	})
}

func FuzzParseIssued(f *testing.F) {
	now, good := time.Now(), newIssuer(newIssuer(nil)).issue(testHost, leafLife)
	f.Add(good[keyLeaf], good[keyLeafKey], good[keyBundle])
	f.Add([]byte("-----BEGIN CERTIFICATE-----"), []byte{0}, []byte(nil))
	f.Fuzz(func(t *testing.T, leaf, key, bundle []byte) {
		data := map[string][]byte{keyLeaf: leaf, keyLeafKey: key, keyBundle: bundle}
		before := maps.Clone(data)
		pair, err := parseIssued(data, testHost, now)
		if (pair == nil) == (err == nil) {
			t.Errorf("certificate %v, error %v", pair, err)
		}
		if !maps.EqualFunc(before, data, slices.Equal[[]byte]) {
			t.Error("it changed what it read")
		}
		if pair != nil && pair.Leaf.VerifyHostname(testHost) != nil {
			t.Errorf("accepted for %s: %v", testHost, pair.Leaf.DNSNames)
		}
	})
}
