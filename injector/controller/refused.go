// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// A refused write is tried again after refusedMin, and ever more rarely up to refusedMax: no watch says that a quota has
// room again.
const (
	refusedMin = 5 * time.Second
	refusedMax = time.Minute
)

// refusedWrite is a write that the API server does not take: a quota, a policy or a missing right forbids it.
type refusedWrite struct {
	injector.Refusal

	what   string // such as "creating Service web-direct"
	object client.Object
	err    error
}

func (e *refusedWrite) Error() string { return e.what + ": " + e.err.Error() }
func (e *refusedWrite) Unwrap() error { return e.err }

// writer is a client whose refused writes are errors that wrap a *refusedWrite. It also notices when one is accepted again.
type writer struct {
	client.Client
	stories *storyteller
}

func (w writer) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	return w.written("creating", o, w.Client.Create(ctx, o, opts...))
}

func (w writer) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	return w.written("updating", o, w.Client.Update(ctx, o, opts...))
}

func (w writer) Patch(ctx context.Context, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
	return w.written("updating", o, w.Client.Patch(ctx, o, patch, opts...))
}

func (w writer) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	return w.written("deleting", o, w.Client.Delete(ctx, o, opts...))
}

func (w writer) SubResource(name string) client.SubResourceClient {
	return subresourceWriter{w.Client.SubResource(name), w}
}

// subresourceWriter is writer for the scale subresource, the only one that is written.
type subresourceWriter struct {
	client.SubResourceClient
	writer writer
}

func (w subresourceWriter) Patch(ctx context.Context, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
	return w.writer.written("scaling", o, w.SubResourceClient.Patch(ctx, o, patch, opts...))
}

func (w writer) written(verb string, o client.Object, err error) error {
	kind := fmt.Sprintf("%T", o)
	if gvk, err := apiutil.GVKForObject(o, w.Scheme()); err == nil {
		kind = gvk.Kind
	}
	what := verb + " " + kind + " " + o.GetName()
	if err == nil {
		w.stories.accept(o.GetNamespace(), what)
		return nil
	}
	if refusal, refused := injector.RefusalOf(err); refused {
		return &refusedWrite{Refusal: refusal, what: what, object: o, err: err}
	}
	return err
}

// refusal is the write for which a Service or a workload waits.
type refusal struct {
	what     string
	since    time.Time
	accepted bool
}

// settle ends a reconcile of the Service or workload about. A refused write becomes an event on the objects, once, and is
// tried again; that it was accepted at last is an event too. Other errors are returned.
//
// The event of a Service that is not taken over for that reason has the reason of all those.
func (s *storyteller) settle(ctx context.Context, about types.NamespacedName, reason, consequence string, result ctrl.Result, err error, objects ...client.Object) (ctrl.Result, error) {
	var refused *refusedWrite
	if !errors.As(err, &refused) {
		if what := s.settled(about); what != "" && err == nil {
			s.tell(ctx, corev1.EventTypeNormal, reasonAccepted, capital(what)+" is accepted now", objects...)
		}
		return result, err
	}
	if _, shared := refused.object.(*networkingv1.Ingress); shared {
		objects = append(objects, refused.object) // its owner may be another
	}
	since, known := s.refuse(about, refused.what)
	if !known {
		log.FromContext(ctx).Info("A write is refused", "write", refused.what, "reason", refused.Why)
		s.tell(ctx, corev1.EventTypeWarning, reason, fmt.Sprintf("%s: %s is refused: %s. %s; it is tried again until it is accepted",
			consequence, refused.what, strings.TrimSuffix(refused.Why, "."), refused.Advice), objects...)
	}
	again := min(max(s.now().Sub(since)/2, refusedMin), refusedMax)
	return ctrl.Result{RequeueAfter: wait.Jitter(again, 0.2)}, nil
}

// refuse remembers what is refused, and returns since when and whether that was known.
func (s *storyteller) refuse(about types.NamespacedName, what string) (since time.Time, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, known := s.refusals[about]
	if known = known && r.what == what; !known {
		r = refusal{what: what, since: s.now()}
	}
	r.accepted = false
	s.refusals[about] = r
	return r.since, known
}

// accept notices a write that was refused before.
func (s *storyteller) accept(namespace, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for about, r := range s.refusals {
		if about.Namespace == namespace && r.what == what {
			r.accepted = true
			s.refusals[about] = r
		}
	}
}

// settled returns the write of the Service or workload that was refused and has been accepted since, once.
func (s *storyteller) settled(about types.NamespacedName) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.refusals[about]
	if !r.accepted {
		return ""
	}
	delete(s.refusals, about)
	return r.what
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
