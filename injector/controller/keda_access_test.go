// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// accessRig is a cluster with KEDA in a namespace of its own, and the Secret of the chart.
type accessRig struct {
	*kedaAccess

	t     *testing.T
	state kedaState
	creds map[string][]byte
	fail  func(verb string, o client.Object) error
	// planned counts how often all workloads are planned again.
	planned int
}

func credentialsOf(name string) map[string][]byte {
	return map[string][]byte{"ca.crt": []byte("ca"), "tls.crt": []byte(name), "tls.key": []byte("key of " + name)}
}

func newAccessRig(t *testing.T, change func(*accessRig), objects ...client.Object) *accessRig {
	t.Helper()
	r := &accessRig{t: t, creds: credentialsOf("first")}
	authentication := keda.GroupVersion().WithKind(keda.ClusterTriggerAuthenticationKind)
	scheme := testScheme(t)
	scheme.AddKnownTypeWithName(authentication, &unstructured.Unstructured{})
	failing := func(verb string, o client.Object) error {
		if r.fail == nil {
			return nil
		}
		return r.fail(verb, o)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(append(objects, ownDeployment(),
		&keda.ScaledObject{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web-deployment"}})...).
		WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
				return errors.Join(failing("get", o), c.Get(ctx, key, o, options...))
			},
			Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, options ...client.PatchOption) error {
				if err := failing("patch", o); err != nil {
					return err
				}
				return c.Patch(ctx, o, p, options...)
			},
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
				if err := failing("create", o); err != nil {
					return err
				}
				return c.Create(ctx, o, options...)
			},
		}).Build()
	r.state.install(nil)
	r.kedaAccess = &kedaAccess{
		KEDAAccess: KEDAAccess{Namespace: "keda", Name: "scale-to-zero", Credentials: func() map[string][]byte { return r.creds }},
		address:    "interceptors:9443", state: &r.state, client: c, live: c, log: logr.Discard(), now: time.Now,
		events: newRecorder(c, time.Now), deployment: client.ObjectKey{Namespace: "ours", Name: "controller"}, arrived: make(chan struct{}, 1),
		planAll:  func() { r.planned++ },
		services: make(chan event.TypedGenericEvent[*keda.ScaledObject], 10),
	}
	r.setDefaults()
	if change != nil {
		change(r)
	}
	return r
}

func chartSecret() *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "keda", Name: "scale-to-zero", Labels: map[string]string{"a": "b"}}}
}

// look is one step. It returns how often all workloads are planned again, and how many Services are told.
func (r *accessRig) look() (planned, services int) {
	r.t.Helper()
	r.step(r.t.Context())
	planned, r.planned = r.planned, 0
	for len(r.services) > 0 {
		<-r.services
		services++
	}
	return planned, services
}

func (r *accessRig) eventNotes() []string {
	r.t.Helper()
	var list corev1.EventList
	if err := r.client.List(r.t.Context(), &list); err != nil {
		r.t.Fatal(err)
	}
	var notes []string
	for _, e := range list.Items {
		notes = append(notes, e.Reason+": "+e.Message)
	}
	return notes
}

func TestKEDAGetsItsCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newAccessRig(t, nil, chartSecret())
		if r.state.settled() {
			t.Error("it is known before it is tried")
		}
		began := time.Now()
		if w, s := r.look(); w != 1 || s != 1 {
			t.Errorf("all are planned %d times, and %d Services are told", w, s)
		}
		if time.Since(began) < r.Lag {
			t.Error("KEDA has no time to see the Secret")
		}
		first := r.state.usable()
		if first == nil || first.Address != "interceptors:9443" || first.Authentication != "scale-to-zero" || first.Credentials == "" {
			t.Fatalf("it is reached by %+v", first)
		}
		var secret corev1.Secret
		if err := r.client.Get(t.Context(), client.ObjectKey{Namespace: "keda", Name: "scale-to-zero"}, &secret); err != nil ||
			string(secret.Data["tls.crt"]) != "first" || len(secret.Data) != 3 || secret.Labels["a"] != "b" {
			t.Errorf("the Secret is %v, %v", secret, err)
		}
		authentication := newUnstructured(keda.GroupVersion().WithKind(keda.ClusterTriggerAuthenticationKind))
		if err := r.client.Get(t.Context(), client.ObjectKey{Name: "scale-to-zero"}, authentication); err != nil {
			t.Fatal(err)
		}
		refs, _, _ := unstructured.NestedSlice(authentication.Object, "spec", "secretTargetRef")
		parameters := map[any]any{}
		for _, ref := range refs {
			parameters[ref.(map[string]any)["parameter"]] = ref.(map[string]any)["key"]
		}
		if len(refs) != 3 || parameters["caCert"] != "ca.crt" || parameters["tlsClientCert"] != "tls.crt" ||
			parameters["tlsClientKey"] != "tls.key" {
			t.Errorf("it names %v", refs)
		}
		// Nothing changes, so nothing is written or told.
		r.fail = func(verb string, o client.Object) error {
			if verb != "get" {
				t.Errorf("%s of %T", verb, o)
			}
			return nil
		}
		if w, s := r.look(); w+s != 0 {
			t.Errorf("%d are told again", w+s)
		}
		r.fail, r.creds = nil, credentialsOf("second")
		if w, _ := r.look(); w != 1 || r.state.usable().Credentials == first.Credentials {
			t.Errorf("%d are told of the next certificate: %+v", w, r.state.usable())
		}
		if got := r.eventNotes(); len(got) != 0 {
			t.Errorf("events %q", got)
		}
	})
}

// TestKEDAWithoutCredentials: what only somebody else can repair makes us scale without KEDA, is said once with what to do, and ends
// when it is repaired. What passes by itself changes nothing.
func TestKEDAWithoutCredentials(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "scale-to-zero", errors.New("no"))
	noGet := func(err error) func(*accessRig) {
		return func(r *accessRig) {
			r.fail = func(verb string, o client.Object) error {
				if _, is := o.(*corev1.Secret); is && verb == "get" {
					return err
				}
				return nil
			}
		}
	}
	for name, tc := range map[string]struct {
		change func(*accessRig)
		says   string // empty if it passes by itself
		repair func(*accessRig)
	}{
		"its namespace is not known": {
			func(r *accessRig) { r.Namespace = "" }, "set the chart's value keda.namespace", func(r *accessRig) { r.Namespace = "keda" },
		},
		"the Secret is elsewhere": {
			func(r *accessRig) { r.Namespace = "x" }, "Secret x/scale-to-zero does not exist; run helm upgrade",
			func(r *accessRig) { r.Namespace = "keda" },
		},
		"no right": {noGet(forbidden), "may not write Secret keda/scale-to-zero; run helm upgrade", func(r *accessRig) { r.fail = nil }},
		"no right on authentications": {func(r *accessRig) {
			r.fail = func(verb string, o client.Object) error {
				if verb == "create" && o.GetNamespace() == "" {
					return forbidden
				}
				return nil
			}
		}, "may not write ClusterTriggerAuthentication scale-to-zero", func(r *accessRig) { r.fail = nil }},
		"no certificate for long": {func(r *accessRig) {
			r.creds = nil
			r.step(r.t.Context())
			if r.state.settled() {
				r.t.Error("it does not wait")
			}
			time.Sleep(r.Patience) //nolint:forbidigo // in a bubble it takes no time
		}, "there is no certificate for it yet", func(r *accessRig) { r.creds = credentialsOf("late") }},
		"the API server hiccups": {noGet(errors.New("timeout")), "", func(r *accessRig) { r.fail = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newAccessRig(t, nil, chartSecret())
				tc.change(r)
				r.look()
				var install injector.Install
				r.state.describe(&install)
				if install.KEDA || !strings.Contains(install.NoKEDA, tc.says) || r.state.settled() != (tc.says != "") {
					t.Errorf("%+v, settled: %v", install, r.state.settled())
				}
				r.look()
				if notes := r.eventNotes(); tc.says != "" && (len(notes) != 1 || !strings.Contains(notes[0], tc.says) ||
					!strings.HasPrefix(notes[0], injector.ReasonWithoutKEDA)) || tc.says == "" && len(notes) != 0 {
					t.Errorf("events %q", notes)
				}
				tc.repair(r)
				if w, s := r.look(); w != 1 || s != 1 || r.state.usable() == nil {
					t.Errorf("after the repair %d and %d are told, and it is reached by %+v", w, s, r.state.usable())
				}
				// Once it works, a failure that passes leaves it as it is.
				noGet(errors.New("timeout"))(r)
				if w, s := r.look(); w+s != 0 || r.state.usable() == nil {
					t.Errorf("a hiccup changes something: %d, %d", w, s)
				}
			})
		})
	}
}

// TestKEDAState: a removal while something is delivered is not undone by that.
func TestKEDAState(t *testing.T) {
	var s kedaState
	if !s.settled() || s.installed() || s.accept(injector.Scaler{}) || s.refuse("x") {
		t.Error("without KEDA there is something to decide")
	}
	s.install(nil)
	s.refuse("x")
	s.remove()
	var i injector.Install
	if s.describe(&i); i.KEDA || i.NoKEDA != "" || !s.settled() {
		t.Errorf("after the removal: %+v", i)
	}
}
