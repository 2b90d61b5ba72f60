// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"
)

// logging is a logger of that verbosity, and what it gets.
func logging(verbosity int) (logr.Logger, *log) {
	l := &log{}
	return funcr.New(l.add, funcr.Options{Verbosity: verbosity}), l
}

// fails has each call of that kind fail while times is positive.
func (c *cluster) fails(verb, resource string, err error, times *int) {
	c.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		if *times == 0 {
			return false, nil, nil
		}
		*times--
		return true, nil, err
	})
}

func forever() *int { return new(1 << 30) }

// TestSelfManagedFailures: what the API server refuses is said in words that name the object, and nothing is served that is
// not in the Secret.
func TestSelfManagedFailures(t *testing.T) {
	const secret = "secret scale-to-zero/webhook-cert"
	for name, tc := range map[string]struct {
		verb, resource string
		want           string
	}{
		"the Secret cannot be read":    {"get", "secrets", "reading " + secret + ": no"},
		"the Secret cannot be created": {"create", "secrets", "writing " + secret + ": no"},
		"the Service cannot be read":   {"get", "services", "writing " + secret + ": reading service scale-to-zero/webhook: no"},
		"the configuration cannot be read": {
			"get", "mutatingwebhookconfigurations", "reading webhook configuration scale-to-zero: no",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, webhooks(""))
			c.fails(tc.verb, tc.resource, errors.New("no"), forever())
			m := c.manager()
			m.Attempts = 1
			want := "getting a serving certificate, tried 1 times: " + tc.want
			if err := m.Ensure(t.Context()); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if _, err := m.GetCertificate(nil); err == nil {
				t.Error("it serves something")
			}
		})
	}
}

// TestLostRaces: a replica whose write comes too late reads again, and serves what the other one has written.
func TestLostRaces(t *testing.T) {
	resource, name := corev1.SchemeGroupVersion.WithResource("secrets"), resourceOf("secrets")
	others := must(newIdentity(nil, testNames(), time.Now()))
	written := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: testSecret, ResourceVersion: "77"}, Data: must(others.data()),
	}
	for title, tc := range map[string]struct {
		exists bool // and its leaf is lost
		verb   string
		err    error
		other  func(c *cluster) error // what the other replica does at that moment
	}{
		"both create it": {
			false, "create", apierrors.NewAlreadyExists(name, testSecret),
			func(c *cluster) error { return c.Tracker().Create(resource, written, testNamespace) },
		},
		"both update it": {
			true, "update", apierrors.NewConflict(name, testSecret, errors.New("it was modified")),
			func(c *cluster) error { return c.Tracker().Update(resource, written, testNamespace) },
		},
		"it is deleted meanwhile": {
			true, "update", apierrors.NewNotFound(name, testSecret),
			func(c *cluster) error { return c.Tracker().Delete(resource, testNamespace, testSecret) },
		},
	} {
		t.Run(title, func(t *testing.T) {
			c := newCluster(t, webhooks(""))
			if tc.exists {
				ensure(t, c.manager())
				c.update(func(s *corev1.Secret) { delete(s.Data, keyLeaf) })
			}
			raced := false
			c.PrependReactor(tc.verb, "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
				if raced {
					return false, nil, nil
				}
				raced = true
				if err := tc.other(c); err != nil {
					t.Error(err)
				}
				return true, nil, tc.err
			})
			m := c.manager()
			var lines *log
			m.Log, lines = logging(1)
			ensure(t, m)
			stored := must(parseIdentity(c.secret().Data, testNames(), time.Now()))
			if !raced || !serves(t, m).Equal(stored.leaf.Leaf) {
				t.Errorf("raced: %t, and something else is served than what the Secret holds", raced)
			}
			if lost := !tc.exists || tc.verb == "update" && !apierrors.IsNotFound(tc.err); lost != serves(t, m).Equal(others.leaf.Leaf) {
				t.Errorf("it serves the other's: %t", !lost)
			}
			if got := strings.Join(lines.take(), "\n"); !strings.Contains(got, "Another replica has written the webhook's certificate first") {
				t.Errorf("the log says %s", got)
			}
			if err := verify(c.bundle(), serves(t, m)); err != nil {
				t.Error(err)
			}
		})
	}
}

func resourceOf(name string) schema.GroupResource { return schema.GroupResource{Resource: name} }

// TestRacesEnd: a Secret that somebody else writes all the time is an error after some rounds, and no endless loop.
func TestRacesEnd(t *testing.T) {
	c := newCluster(t, webhooks(""))
	c.fails("create", "secrets", apierrors.NewAlreadyExists(resourceOf("secrets"), testSecret), forever())
	m := c.manager()
	m.Attempts = 1
	const want = "getting a serving certificate, tried 1 times: writing secret scale-to-zero/webhook-cert: it changed each of 8 times"
	if err := m.Ensure(t.Context()); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if got := c.count("create", "secrets"); got != 8 {
		t.Errorf("%d writes", got)
	}
}

// TestUnpublished: while the CA cannot be published, a certificate that the API server trusts goes on being served; without one,
// the new one is.
func TestUnpublished(t *testing.T) {
	for name, tc := range map[string]struct {
		served bool          // another one is
		after  time.Duration // the Secret is lost
		want   bool          // the new one is served
		says   string
	}{
		"nothing is served yet":  {false, 0, true, "The API server does not know the webhook's CA yet"},
		"another is served":      {true, time.Hour, false, "patching the caBundle of webhook configuration scale-to-zero: no"},
		"another was, until now": {true, leafLife, true, "patching the caBundle of webhook configuration scale-to-zero: no"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, webhooks(""))
				m := c.manager()
				if tc.served {
					ensure(t, m)
					advance(tc.after)
					if err := c.CoreV1().Secrets(testNamespace).Delete(t.Context(), testSecret, metav1.DeleteOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				c.fails("patch", "mutatingwebhookconfigurations", errors.New("no"), forever())
				var lines *log
				m.Log, lines = logging(0)
				ensure(t, m)
				stored := must(parseIdentity(c.secret().Data, testNames(), time.Now()))
				if got := serves(t, m).Equal(stored.leaf.Leaf); got != tc.want {
					t.Errorf("the new one is served: %t", got)
				}
				if got := strings.Join(lines.take(), "\n"); !strings.Contains(got, tc.says) {
					t.Errorf("the log says %s", got)
				}
			})
		})
	}
}

// TestPatchOfTheConfiguration: the CA is published in one write, of nothing else, which fails if the configuration has changed.
func TestPatchOfTheConfiguration(t *testing.T) {
	config := webhooks("")
	config.ResourceVersion = "41"
	config.Webhooks[1].ClientConfig.CABundle = []byte("x")
	c := newCluster(t, config)
	m := c.manager()
	ensure(t, m)
	bundle := c.secret().Data[keyBundle]
	want := map[string]any{
		"metadata": map[string]any{"resourceVersion": "41"},
		"webhooks": []any{
			map[string]any{"name": "a.example.com", "clientConfig": map[string]any{"caBundle": asJSON(t, bundle)}},
			map[string]any{"name": "b.example.com", "clientConfig": map[string]any{"caBundle": asJSON(t, bundle)}},
		},
	}
	patches := 0
	for _, a := range c.Actions() {
		patch, ok := a.(clienttesting.PatchAction)
		if !ok {
			continue
		}
		patches++
		var got map[string]any
		if err := json.Unmarshal(patch.GetPatch(), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	ensure(t, m)
	if after := c.count("patch", "mutatingwebhookconfigurations"); patches != 1 || after != 1 {
		t.Errorf("%d patches, and then %d; one is enough", patches, after)
	}
}

// asJSON is a value as it is in JSON.
func asJSON(t *testing.T, value any) any {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestConfigurationWithoutWebhooks: there is nothing to publish to, and that is no failure.
func TestConfigurationWithoutWebhooks(t *testing.T) {
	config := webhooks("")
	config.Webhooks = nil
	c := newCluster(t, config)
	m := c.manager()
	ensure(t, m)
	if serves(t, m) == nil || c.count("patch", "mutatingwebhookconfigurations") > 0 {
		t.Error("nothing is served, or something is published")
	}
}

// TestSecretOfOurs: the Secret goes with the Service, is found by our label, and keeps what others add to it.
func TestSecretOfOurs(t *testing.T) {
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "webhook", Namespace: testNamespace, UID: "u"}}
	owned := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "webhook", UID: "u"}}
	for name, tc := range map[string]struct {
		objects []runtime.Object
		want    []metav1.OwnerReference
	}{
		"with the Service": {[]runtime.Object{webhooks(""), service}, owned},
		"without it":       {[]runtime.Object{webhooks("")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, tc.objects...)
			ensure(t, c.manager())
			s := c.secret()
			if diff := cmp.Diff(tc.want, s.OwnerReferences); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(map[string]string{"app.kubernetes.io/managed-by": "scale-to-zero"}, s.Labels); diff != "" {
				t.Error(diff)
			}
			if s.Type != corev1.SecretTypeTLS {
				t.Errorf("it is of type %s", s.Type)
			}
			c.update(func(s *corev1.Secret) {
				s.Annotations = map[string]string{"example.com/backup": "no"}
				delete(s.Data, keyLeaf)
			})
			ensure(t, c.manager())
			if after := c.secret(); after.Annotations["example.com/backup"] != "no" || !cmp.Equal(after.OwnerReferences, tc.want) {
				t.Errorf("the write has changed annotations to %v and owners to %v", after.Annotations, after.OwnerReferences)
			}
		})
	}
}
