// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// scripted is a source that answers as a test says, and notes when it was asked.
type scripted struct {
	begin  time.Time
	answer func(n int) (time.Time, error)

	mu    sync.Mutex      // protects asked
	asked []time.Duration // since begin
}

func (s *scripted) sync(context.Context, *tls.Certificate) (*tls.Certificate, time.Time, error) {
	s.mu.Lock()
	s.asked = append(s.asked, time.Since(s.begin))
	n := len(s.asked)
	s.mu.Unlock()
	due, err := s.answer(n)
	return nil, due, err
}

func (s *scripted) informers() []cache.SharedIndexInformer { return nil }

// times is how often it was asked.
func (s *scripted) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// pauses are the times between the calls.
func (s *scripted) pauses() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []time.Duration
	for i := 1; i < len(s.asked); i++ {
		out = append(out, s.asked[i]-s.asked[i-1])
	}
	return out
}

func scriptedManager(answer func(n int) (time.Time, error)) (*Manager, *scripted, *log) {
	s := &scripted{begin: time.Now(), answer: answer}
	logger, lines := logging(0)
	m := &Manager{Options: Options{Log: logger}, source: s}
	m.setDefaults()
	return m, s, lines
}

const quarter = 250 * time.Millisecond

// TestPauses: what fails is tried again soon, and ever more rarely; what is due is done then, and at least at each resync.
func TestPauses(t *testing.T) {
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		answer func(n int) (time.Time, error)
		ensure bool // it is Ensure that asks, and else Start
		want   []time.Duration
	}{
		"Ensure": {
			func(int) (time.Time, error) { return time.Time{}, broken }, true,
			[]time.Duration{
				quarter, 2 * quarter, time.Second, 2 * time.Second, 4 * time.Second,
				5 * time.Second, 5 * time.Second, 5 * time.Second, 5 * time.Second,
			},
		},
		"Start, broken": {
			func(int) (time.Time, error) { return time.Time{}, broken }, false,
			[]time.Duration{quarter, 2 * quarter, time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second},
		},
		"Start, well after three failures, and broken again": {
			func(n int) (time.Time, error) {
				if n == 4 {
					return time.Now().Add(time.Minute), nil
				}
				return time.Now().Add(time.Hour), broken
			}, false,
			[]time.Duration{quarter, 2 * quarter, time.Second, time.Minute, quarter, 2 * quarter, time.Second},
		},
		"Start, due in the past": {
			func(int) (time.Time, error) { return time.Now().Add(-time.Hour), nil }, false,
			slices.Repeat([]time.Duration{time.Second}, 7),
		},
		"Start, due soon": {
			func(int) (time.Time, error) { return time.Now().Add(3 * time.Second), nil }, false,
			slices.Repeat([]time.Duration{3 * time.Second}, 7),
		},
		"Start, due in months": {
			func(int) (time.Time, error) { return time.Now().Add(60 * day), nil }, false,
			slices.Repeat([]time.Duration{10 * time.Minute}, 7),
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, s, _ := scriptedManager(tc.answer)
				if tc.ensure {
					if err := m.Ensure(t.Context()); err == nil || err.Error() != "getting a serving certificate, tried 10 times: broken" {
						t.Errorf("got %v", err)
					}
				} else {
					start(t, m)
					for s.times() <= len(tc.want) {
						advance(quarter)
					}
				}
				if diff := cmp.Diff(tc.want, s.pauses()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestFailuresAreLogged says when it tries again; that it is told to stop is no failure.
func TestFailuresAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _, lines := scriptedManager(func(int) (time.Time, error) { return time.Time{}, errors.New("broken") })
		start(t, m)
		assertLine(t, lines.take(), "Updating the webhook's certificate failed; trying again", `"in"="250ms"`, "broken")
		advance(quarter)
		assertLine(t, lines.take(), `"in"="500ms"`)

		ctx, cancel := context.WithCancel(t.Context())
		m, _, lines = scriptedManager(func(int) (time.Time, error) {
			cancel()
			return time.Time{}, ctx.Err()
		})
		if err := m.Start(ctx); err != nil || len(lines.take()) > 0 {
			t.Errorf("stopped in the middle of a look, it returns %v and logs", err)
		}
	})
}

// TestEnsureIsInterrupted: whoever waits for a certificate no longer gets what was wrong, too.
func TestEnsureIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s, _ := scriptedManager(func(int) (time.Time, error) { return time.Time{}, errors.New("broken") })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := m.Ensure(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "broken") || s.times() != 3 {
			t.Errorf("after %d times: %v", s.times(), err)
		}
	})
}

// TestReadyUntilTheEnd: a replica is ready until the very end of what it serves, and says what is wrong then.
func TestReadyUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := must(newIdentity(nil, testNames(), time.Now()))
		m, _, _ := scriptedManager(nil)
		if err := m.ReadyCheck(nil); err == nil || err.Error() != "checking the serving certificate: there is none yet" {
			t.Errorf("got %v", err)
		}
		if _, err := m.GetCertificate(nil); err == nil || err.Error() != "getting the serving certificate: there is none yet" {
			t.Errorf("got %v", err)
		}
		m.leaf.Store(id.leaf)
		end := id.leaf.Leaf.NotAfter
		advance(time.Until(end) - time.Nanosecond)
		if err := m.ReadyCheck(nil); err != nil {
			t.Errorf("before its end: %v", err)
		}
		advance(time.Nanosecond)
		want := "checking the serving certificate: it expired at " + end.Format(time.RFC3339)
		if err := m.ReadyCheck(nil); err == nil || err.Error() != want {
			t.Errorf("at its end: %v, want %s", err, want)
		}
	})
}

// TestRequiredOptions: each that is missing is named, and only those that the mode needs are missed.
func TestRequiredOptions(t *testing.T) {
	const prefix = "making a certificate manager: "
	all := Options{
		Namespace: "n", SecretName: "s", Service: "w", WebhookConfiguration: "c", Client: fake.NewClientset(), Reader: clientfake.NewFakeClient(),
	}
	for name, tc := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"all, in the default mode": {func(*Options) {}, ""},
		"self needs no Reader":     {func(o *Options) { o.Mode, o.Reader = ModeSelf, nil }, ""},
		"no Namespace":             {func(o *Options) { o.Namespace = "" }, prefix + "Namespace is required"},
		"no SecretName":            {func(o *Options) { o.SecretName = "" }, prefix + "SecretName is required"},
		"no Service":               {func(o *Options) { o.Service = "" }, prefix + "Service is required"},
		"no WebhookConfiguration":  {func(o *Options) { o.WebhookConfiguration = "" }, prefix + "WebhookConfiguration is required"},
		"cert-manager needs none":  {func(o *Options) { o.Mode, o.WebhookConfiguration = ModeCertManager, "" }, ""},
		"no Client":                {func(o *Options) { o.Client = nil }, prefix + "Client is required, and with cert-manager Reader"},
		"cert-manager and no Reader": {
			func(o *Options) { o.Mode, o.Reader = ModeCertManager, nil }, prefix + "Client is required, and with cert-manager Reader",
		},
		"no such mode": {
			func(o *Options) { o.Mode = "vault" }, prefix + `the mode is "vault"; allowed are self and cert-manager`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := all
			tc.change(&o)
			m, err := New(o)
			if tc.want == "" && (err != nil || m == nil) || tc.want != "" && (err == nil || err.Error() != tc.want) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
	mine := all
	mine.Resync, mine.Attempts = time.Hour, 3
	m := must(New(mine))
	if m.Resync != time.Hour || m.Attempts != 3 {
		t.Errorf("it looks every %s, and tries %d times", m.Resync, m.Attempts)
	}
	if m = must(New(all)); m.Mode != ModeSelf || m.Resync != 10*time.Minute || m.Attempts != 10 {
		t.Errorf("the defaults are %+v", m.Options)
	}
}

// TestEventOfCertManager is the whole event, as `kubectl describe` shows it.
func TestEventOfCertManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "controller", UID: "u"}})
		m, lines := c.reader()
		m.Deployment = "controller"
		source := m.source.(*certManager)
		written := func() []corev1.Event {
			list := must(c.CoreV1().Events(testNamespace).List(t.Context(), metav1.ListOptions{}))
			return list.Items
		}
		source.emit(t.Context(), "it does not exist. Certificate a does not exist")
		events := written()
		if len(events) != 1 {
			t.Fatalf("%d events", len(events))
		}
		now := metav1.NewTime(time.Now())
		want := corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: events[0].Name},
			InvolvedObject: corev1.ObjectReference{
				APIVersion: "apps/v1", Kind: "Deployment", Namespace: testNamespace, Name: "controller", UID: "u",
			},
			Type: "Warning", Reason: "CertificateNotIssued",
			Message: "The webhook's certificate in Secret webhook-cert cannot be served: it does not exist. Certificate a does not exist",
			Source:  corev1.EventSource{Component: "scale-to-zero"}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
		}
		if diff := cmp.Diff(want, events[0], cmpopts.IgnoreTypes(metav1.TypeMeta{}, []metav1.ManagedFieldsEntry{})); diff != "" {
			t.Error(diff)
		}
		if !strings.HasPrefix(events[0].Name, "controller.") {
			t.Errorf("it is named %s", events[0].Name)
		}
		source.emit(t.Context(), "it does not exist. Certificate a does not exist") // another replica
		if got := len(written()); got != 1 || len(lines.take()) > 0 {
			t.Errorf("two replicas write %d events, or one complains", got)
		}
		source.emit(t.Context(), "it does not exist. Certificate b does not exist")
		if got := len(written()); got != 2 {
			t.Errorf("%d events about two reasons", got)
		}
		c.fails("create", "events", errors.New("forbidden"), forever())
		source.emit(t.Context(), "c")
		assertLine(t, lines.take(), "Writing an event failed", "cannot be served: c", "forbidden")
	})
}

// TestLongEvents: an event is as long as the API server allows, and not garbled where it is cut.
func TestLongEvents(t *testing.T) {
	const before = len("The webhook's certificate in Secret webhook-cert cannot be served: ")
	for name, tc := range map[string]struct{ why, want string }{
		"as long as allowed":      {strings.Repeat("x", 1024-before), strings.Repeat("x", 1024-before)},
		"longer by one":           {strings.Repeat("x", 1025-before), strings.Repeat("x", 1021-before) + "..."},
		"cut within a character":  {strings.Repeat("x", 1020-before) + "éééé", strings.Repeat("x", 1020-before) + "..."},
		"cut between characters":  {strings.Repeat("x", 1019-before) + "éééé", strings.Repeat("x", 1019-before) + "é..."},
		"nothing but its reasons": {"x", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "controller"}})
			m, _ := c.reader()
			m.Deployment = "controller"
			m.source.(*certManager).emit(t.Context(), tc.why)
			list := must(c.CoreV1().Events(testNamespace).List(t.Context(), metav1.ListOptions{}))
			if len(list.Items) != 1 {
				t.Fatalf("%d events", len(list.Items))
			}
			if got := list.Items[0].Message[before:]; got != tc.want {
				t.Errorf("got  …%s\nwant …%s", got[max(0, len(got)-10):], tc.want[max(0, len(tc.want)-10):])
			}
		})
	}
}

// TestClockOfTheIssuer: a certificate whose issuer's clock is ahead is used if that is by skew at most.
func TestClockOfTheIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := newIssuer(nil).issue(testHost, leafLife)
		now := time.Now()
		for name, tc := range map[string]struct {
			at   time.Time
			want string
		}{
			"when it is issued":        {now, ""},
			"our clock is skew behind": {now.Add(-skew), ""},
			"it is a second more": {
				now.Add(-skew - time.Second), "verifying tls.crt with ca.crt: x509: certificate has expired or is not yet valid",
			},
			"its last second":           {now.Add(leafLife - time.Second), ""},
			"its end":                   {now.Add(leafLife), "tls.crt expired at " + now.Add(leafLife).UTC().Format(time.RFC3339)},
			"a long time after its end": {now.Add(2 * leafLife), "tls.crt expired at " + now.Add(leafLife).UTC().Format(time.RFC3339)},
		} {
			pair, err := parseIssued(data, testHost, tc.at)
			if (err == nil) != (tc.want == "") || err != nil && !strings.HasPrefix(err.Error(), tc.want) || (pair == nil) != (err != nil) {
				t.Errorf("%s: %v, want %s", name, err, tc.want)
			}
		}
	})
}

// TestRemoveNames says which object could not be deleted.
func TestRemoveNames(t *testing.T) {
	for name, tc := range map[string]struct {
		kind client.Object
		want string
	}{
		"a Certificate": {&certmanagerv1.Certificate{}, "deleting certificate scale-to-zero/ca: no"},
		"a Secret":      {&corev1.Secret{}, "deleting secret scale-to-zero/ca: no"},
	} {
		t.Run(name, func(t *testing.T) {
			c := clientfake.NewClientBuilder().WithScheme(newScheme(t)).WithInterceptorFuncs(interceptor.Funcs{
				Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
					if reflect.TypeOf(o) == reflect.TypeOf(tc.kind) && o.GetName() == "ca" {
						return errors.New("no")
					}
					return c.Delete(ctx, o, opts...)
				},
			}).Build()
			if err := Remove(t.Context(), c, testNamespace, []string{"tls", "ca"}); err == nil || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
