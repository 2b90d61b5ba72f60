// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	testAuthority = "internal-authority"
	serverSecret  = "server-cert"
	clientSecret  = "client-cert"
)

// rig runs Leaves against a fake API server, and remembers what was passed on.
type rig struct {
	*cluster

	leaves *Leaves
	log    *log
	used   []Pair // of the client
}

func newRig(t *testing.T, change func(*LeavesOptions)) *rig {
	t.Helper()
	r := &rig{cluster: newCluster(t, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "interceptors", UID: "u"},
	}), log: &log{}}
	r.restart(change)
	return r
}

// restart is another leader.
func (r *rig) restart(change func(*LeavesOptions)) {
	r.t.Helper()
	o := LeavesOptions{
		Namespace: testNamespace, AuthoritySecret: testAuthority, Service: "interceptors", Client: r,
		Log: funcr.New(r.log.add, funcr.Options{}),
		Leaves: []Leaf{
			{Secret: serverSecret, DNSNames: []string{"a.internal", "interceptors.svc"}, Server: true},
			{Secret: clientSecret, DNSNames: []string{"b.internal"}, Use: func(p Pair) { r.used = append(r.used, p) }},
		},
	}
	if change != nil {
		change(&o)
	}
	var err error
	if r.leaves, err = NewLeaves(o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) sync() time.Time {
	r.t.Helper()
	due, err := r.leaves.sync(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return due
}

func (r *rig) stored(name string) *corev1.Secret {
	r.t.Helper()
	s, err := r.CoreV1().Secrets(testNamespace).Get(r.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) change(name string, change func(map[string][]byte)) {
	r.t.Helper()
	s := r.stored(name)
	change(s.Data)
	if _, err := r.CoreV1().Secrets(testNamespace).Update(r.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// leafIn returns the certificate in a Secret.
func (r *rig) leafIn(name string) *x509.Certificate {
	r.t.Helper()
	data := r.stored(name).Data
	return must(tls.X509KeyPair(data[keyLeaf], data[keyLeafKey])).Leaf
}

// accepts says whether who has the first Secret accepts the certificate in the second.
func (r *rig) accepts(first, second string, usage x509.ExtKeyUsage) error {
	r.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.stored(first).Data[keyBundle])
	_, err := r.leafIn(second).Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

// agree checks that both sides accept each other.
func (r *rig) agree() {
	r.t.Helper()
	if err := r.accepts(serverSecret, clientSecret, x509.ExtKeyUsageClientAuth); err != nil {
		r.t.Errorf("the server refuses the client: %v", err)
	}
	if err := r.accepts(clientSecret, serverSecret, x509.ExtKeyUsageServerAuth); err != nil {
		r.t.Errorf("the client refuses the server: %v", err)
	}
}

func TestFirstLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		due := r.sync()
		r.agree()
		server, client := r.leafIn(serverSecret), r.leafIn(clientSecret)
		if !slices.Equal(server.DNSNames, []string{"a.internal", "interceptors.svc"}) || !slices.Equal(client.DNSNames, []string{"b.internal"}) {
			t.Errorf("they are for %v and %v", server.DNSNames, client.DNSNames)
		}
		if err := r.accepts(serverSecret, clientSecret, x509.ExtKeyUsageServerAuth); err == nil {
			t.Error("the client's certificate is good for a server")
		}
		if want := time.Now().Add(leafLife * 2 / 3); !due.Equal(want.Truncate(time.Second)) {
			t.Errorf("due at %s, want %s", due, want)
		}
		for _, name := range []string{serverSecret, clientSecret, testAuthority} {
			s := r.stored(name)
			if len(s.OwnerReferences) != 1 || s.OwnerReferences[0].Name != "interceptors" {
				t.Errorf("%s is owned by %v", name, s.OwnerReferences)
			}
			if _, has := s.Data[keyAuthorityKey]; has != (name == testAuthority) {
				t.Errorf("%s has the authority's key: %v", name, has)
			}
		}
		r.sync()
		if len(r.used) != 1 || !bytes.Equal(r.used[0].Certificate, r.stored(clientSecret).Data[keyLeaf]) {
			t.Errorf("it was passed on %d times", len(r.used))
		}
		r.restart(nil)
		r.sync()
		if len(r.used) != 2 || !r.leafIn(serverSecret).Equal(server) {
			t.Errorf("another leader passes on %d and makes new ones", len(r.used))
		}
	})
}

// TestLeavesRenew follows a whole life of authorities, in days and in seconds. At each step both sides accept each other, and a side
// that has not seen the last step does too.
func TestLeavesRenew(t *testing.T) {
	for _, life := range []time.Duration{leafLife, 45 * time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(o *LeavesOptions) { o.Life = life })
				began, authorities, leaves := time.Now(), map[string]bool{}, map[string]bool{}
				var before map[string][]byte
				for time.Since(began) < 45*life {
					due := r.sync()
					r.agree()
					if before != nil {
						lagging := x509.NewCertPool()
						lagging.AppendCertsFromPEM(before[keyBundle])
						if _, err := r.leafIn(serverSecret).Verify(x509.VerifyOptions{Roots: lagging}); err != nil {
							t.Fatalf("after %s: who is a step behind refuses the server: %v", time.Since(began), err)
						}
					}
					data := r.stored(clientSecret).Data
					if before != nil && !bytes.Equal(before[keyLeaf], data[keyLeaf]) && !bytes.Equal(before[keyBundle], data[keyBundle]) {
						t.Fatalf("after %s: the authorities and the leaf change in one step", time.Since(began))
					}
					before = maps.Clone(data)
					leaves[string(data[keyLeaf])] = true
					authorities[string(r.stored(testAuthority).Data[keyAuthorityKey])] = true
					wait := time.Until(due)
					if wait <= 0 {
						t.Fatalf("after %s: due %s ago", time.Since(began), -wait)
					}
					advance(wait)
				}
				if len(authorities) != 3 || len(leaves) < 60 || len(leaves) > 75 {
					t.Errorf("%d authorities, %d leaves", len(authorities), len(leaves))
				}
			})
		})
	}
}

// TestLeavesAreRepaired: whatever becomes of a Secret, what is written instead is usable, and what still was usable stays so.
func TestLeavesAreRepaired(t *testing.T) {
	for name, tc := range map[string]struct {
		secret string
		change func(map[string][]byte)
		kept   bool // the client's leaf
		says   string
	}{
		"the leaf is lost":         {clientSecret, func(d map[string][]byte) { delete(d, keyLeaf) }, false, "Renewed an internal certificate"},
		"its key is another's":     {clientSecret, func(d map[string][]byte) { d[keyLeafKey] = []byte("x") }, false, "Renewed an internal"},
		"its authorities are lost": {clientSecret, func(d map[string][]byte) { delete(d, keyBundle) }, true, "the authorities have changed"},
		"somebody adds an authority": {clientSecret, func(d map[string][]byte) {
			d[keyBundle] = append(d[keyBundle], encodeCert(newIssuer(nil).cert)...)
		}, true, "the authorities have changed"},
		"somebody's certificate": {clientSecret, func(d map[string][]byte) {
			maps.Copy(d, newIssuer(nil).issue("b.internal", time.Hour))
		}, false, "unknown authority"},
		"the authority's key is lost": {testAuthority, func(d map[string][]byte) { delete(d, keyAuthorityKey) }, true, "Made an internal"},
		"the authority is nonsense":   {testAuthority, func(d map[string][]byte) { d[keyBundle] = []byte("x") }, true, "Made an internal"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.sync()
				before := r.leafIn(clientSecret)
				r.change(tc.secret, tc.change)
				r.log.take()
				r.sync()
				r.agree()
				if got := r.leafIn(clientSecret).Equal(before); got != tc.kept {
					t.Errorf("the leaf is kept: %v", got)
				}
				if said := strings.Join(r.log.take(), "\n"); !strings.Contains(said, tc.says) {
					t.Errorf("the log says %s", said)
				}
				last := r.used[len(r.used)-1]
				if !bytes.Equal(last.Authorities, r.stored(clientSecret).Data[keyBundle]) {
					t.Error("the new content is not passed on")
				}
				advance(2 * publishedFor) // a new authority signs now
				r.sync()
				r.agree()
				if err := r.leafIn(clientSecret).CheckSignatureFrom(must(parseInternal(r.stored(testAuthority).Data, r.leaves.lives,
					time.Now())).authorities[0]); err != nil {
					t.Errorf("the present authority has not signed it: %v", err)
				}
			})
		})
	}
}

// TestLeavesChangeWithTheirOptions: another name, or another life, is another certificate.
func TestLeavesChangeWithTheirOptions(t *testing.T) {
	for name, change := range map[string]func(*LeavesOptions){
		"a name more":    func(o *LeavesOptions) { o.Leaves[1].DNSNames = append(o.Leaves[1].DNSNames, "c") },
		"another use":    func(o *LeavesOptions) { o.Leaves[1].Server = true },
		"a shorter life": func(o *LeavesOptions) { o.Life = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.sync()
				before := r.leafIn(clientSecret)
				r.restart(change)
				if due := r.sync(); time.Until(due) <= 0 {
					t.Errorf("due %s", due)
				}
				r.agree()
				if r.leafIn(clientSecret).Equal(before) {
					t.Error("it is the same certificate")
				}
			})
		})
	}
}

// TestLeavesRun: Start does what is due at its time, takes back what others write, and says what fails.
func TestLeavesRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		broken := 2
		r.fails("create", "secrets", errors.New("no"), &broken)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.leaves.Start(ctx) }()
		advance(time.Minute)
		if said := strings.Join(r.log.take(), "\n"); strings.Count(said, "Updating the internal certificates failed") != 2 {
			t.Errorf("the log says %s", said)
		}
		first := r.leafIn(clientSecret)
		r.change(clientSecret, func(d map[string][]byte) { delete(d, keyLeaf) })
		advance(2 * time.Second)
		if second := r.leafIn(clientSecret); second.Equal(first) {
			t.Error("it is not repaired")
		}
		advance(leafLife * 3 / 4)
		r.agree()
		cancel()
		if err := <-done; err != nil || !r.leaves.NeedLeaderElection() {
			t.Errorf("it ends with %v", err)
		}
	})
}

// TestIssuedLeaves: with cert-manager the Secrets are only read, and what is missing is said once, and later in an event.
func TestIssuedLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.cluster = newCluster(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "controller", UID: "u"}})
		r.restart(func(o *LeavesOptions) {
			o.Mode, o.Reader, o.Deployment, o.Client = ModeCertManager, certManagerWith(t), "controller", r
		})
		step := func() string {
			t.Helper()
			due := r.sync()
			advance(time.Until(due))
			return strings.Join(r.log.take(), "\n")
		}
		const waiting = "Waiting for cert-manager to issue an internal certificate"
		if said := step(); !strings.Contains(said, waiting) || !strings.Contains(said, clientSecret) || strings.Contains(said, serverSecret) {
			t.Errorf("the log says %s", said)
		}
		for range 4 {
			if said := step(); strings.Contains(said, waiting) {
				t.Errorf("it says again %s", said)
			}
		}
		events, err := r.CoreV1().Events(testNamespace).List(t.Context(), metav1.ListOptions{})
		const unusable = "The internal certificate in Secret client-cert cannot be used"
		if err != nil || len(events.Items) != 1 || !strings.HasPrefix(events.Items[0].Message, unusable) {
			t.Errorf("events %v, %v", events.Items, err)
		}
		by := newIssuer(nil)
		put := func(data map[string][]byte) {
			t.Helper()
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: clientSecret}, Data: data}
			_, err := r.CoreV1().Secrets(testNamespace).Create(t.Context(), secret, metav1.CreateOptions{})
			if apierrors.IsAlreadyExists(err) {
				r.change(clientSecret, func(d map[string][]byte) { clear(d); maps.Copy(d, data) })
			} else if err != nil {
				t.Fatal(err)
			}
		}
		put(by.issue("b.internal", time.Hour)) // for a server alone
		if said := step(); !strings.Contains(said, "incompatible key usage") || len(r.used) != 0 {
			t.Errorf("the log says %s, and it is used %d times", said, len(r.used))
		}
		usable := func() map[string][]byte {
			a := &internal{lives: livesOf(time.Hour), authorities: []*x509.Certificate{by.cert}, key: by.key}
			return must(a.issue(&Leaf{DNSNames: []string{"b.internal"}}, time.Now()))
		}
		for n := range 2 {
			put(usable())
			step()
			if len(r.used) != n+1 {
				t.Errorf("it is passed on %d times", len(r.used))
			}
		}
	})
}

func TestLeavesOptions(t *testing.T) {
	good := func() LeavesOptions {
		return LeavesOptions{
			Namespace: "a", AuthoritySecret: "b", Client: newCluster(t), Leaves: []Leaf{{Secret: "c", DNSNames: []string{"d"}}},
		}
	}
	for name, change := range map[string]func(*LeavesOptions){
		"no namespace":      func(o *LeavesOptions) { o.Namespace = "" },
		"no authority":      func(o *LeavesOptions) { o.AuthoritySecret = "" },
		"no client":         func(o *LeavesOptions) { o.Client = nil },
		"no reader":         func(o *LeavesOptions) { o.Mode = ModeCertManager },
		"a leaf for nobody": func(o *LeavesOptions) { o.Leaves[0].DNSNames = nil },
		"a leaf nowhere":    func(o *LeavesOptions) { o.Leaves[0].Secret = "" },
		"two of a name":     func(o *LeavesOptions) { o.Leaves = append(o.Leaves, Leaf{Secret: "e", DNSNames: []string{"d"}}) },
		"two in one Secret": func(o *LeavesOptions) { o.Leaves = append(o.Leaves, Leaf{Secret: "c", DNSNames: []string{"e"}}) },
	} {
		o := good()
		if _, err := NewLeaves(o); err != nil {
			t.Fatal(err)
		}
		change(&o)
		if _, err := NewLeaves(o); err == nil {
			t.Errorf("%s is allowed", name)
		}
	}
}
