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
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// A refused write is retried after refusedMin, and then ever more rarely, up to refusedMax: no watch reports that a quota has room
// again.
const (
	refusedMin = 5 * time.Second
	refusedMax = time.Minute
)

// refusedError is a write that the API server refuses because of a quota, a policy or a missing right.
type refusedError struct {
	injector.Refusal

	what   string // for example "creating Service web-direct"
	object client.Object
	err    error
}

func (e *refusedError) Error() string { return e.what + ": " + e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// writer is a client that returns a *refusedError for a refused write. It also notices when such a write is accepted later.
type writer struct {
	client.Client
	live   client.Reader // reads what the cache omits
	events *recorder
}

func (w writer) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	return w.written("creating", o, w.exists(ctx, o, w.Client.Create(ctx, o, opts...)))
}

// exists turns the error that an EndpointSlice exists already into a refusal, unless the slice is one of ours that the cache does not
// show yet. A slice of somebody else's stays until somebody deletes it.
func (w writer) exists(ctx context.Context, o client.Object, err error) error {
	if _, slice := o.(*discoveryv1.EndpointSlice); !slice || !apierrors.IsAlreadyExists(err) {
		return err
	}
	have := &discoveryv1.EndpointSlice{}
	if failed := w.live.Get(ctx, client.ObjectKeyFromObject(o), have); failed != nil || injector.IsRouteSlice(have) {
		return err
	}
	return &refusedError{Refusal: injector.ForeignSlice(have), what: "creating EndpointSlice " + have.Name, object: o, err: err}
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

// written turns the error of a write into a *refusedError if the write was refused.
func (w writer) written(verb string, o client.Object, err error) error {
	kind := fmt.Sprintf("%T", o)
	if gvk, err := apiutil.GVKForObject(o, w.Scheme()); err == nil {
		kind = gvk.Kind
	}
	what := verb + " " + kind + " " + o.GetName()
	if err == nil {
		w.events.accept(o.GetNamespace(), what)
		return nil
	}
	if _, refused := errors.AsType[*refusedError](err); refused {
		return err
	}
	if refusal, refused := injector.RefusalOf(err); refused {
		return &refusedError{Refusal: refusal, what: what, object: o, err: err}
	}
	return err
}

// refusal is a refused write for which a Service or a workload waits.
type refusal struct {
	what     string
	since    time.Time
	accepted bool
}

// finish ends a reconcile of the Service or workload about. It reports a refused write by an event on the objects, once, and the
// write is retried. When the write is accepted later, that is an event too. Other errors are returned.
//
// If a Service is not injected because of the refusal, the event has the reason that all such events have.
func (r *recorder) finish(ctx context.Context, about types.NamespacedName, reason, consequence string, result ctrl.Result, err error,
	objects ...injector.Object,
) (ctrl.Result, error) {
	refused, ok := errors.AsType[*refusedError](err)
	if !ok {
		if what := r.accepted(about); what != "" && err == nil {
			r.emit(ctx, injector.Report{
				Type: corev1.EventTypeNormal, Reason: injector.ReasonAccepted, Note: capital(what) + " is accepted now",
				Objects: objects,
			})
		}
		if err != nil {
			return ctrl.Result{}, err
		}
		return result, nil
	}
	if _, shared := refused.object.(*networkingv1.Ingress); shared {
		objects = append(objects, refused.object) // the Ingress may have another owner
	}
	since, known := r.refuse(about, refused.what)
	if !known {
		log.FromContext(ctx).Info("A write is refused", "write", refused.what, "reason", refused.Why)
		note := fmt.Sprintf("%s: %s is refused: %s. %s; it is tried again until it is accepted",
			consequence, refused.what, strings.TrimSuffix(refused.Why, "."), refused.Advice)
		r.emit(ctx, injector.Report{Type: corev1.EventTypeWarning, Reason: reason, Note: note, Objects: objects})
	}
	again := min(max(r.now().Sub(since)/2, refusedMin), refusedMax)
	return ctrl.Result{RequeueAfter: wait.Jitter(again, 0.2)}, nil
}

// refuse notes a refused write. It returns since when the write is refused, and whether that was known.
func (r *recorder) refuse(about types.NamespacedName, what string) (since time.Time, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one, known := r.refusals[about]
	if known = known && one.what == what; !known {
		one = refusal{what: what, since: r.now()}
	}
	one.accepted = false
	r.refusals[about] = one
	return one.since, known
}

// accept notes that a write which was refused before is accepted now.
func (r *recorder) accept(namespace, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for about, one := range r.refusals {
		if about.Namespace == namespace && one.what == what {
			one.accepted = true
			r.refusals[about] = one
		}
	}
}

// accepted returns the write of the Service or workload that was refused and has been accepted since. It returns the write only once.
func (r *recorder) accepted(about types.NamespacedName) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.refusals[about]
	if !one.accepted {
		return ""
	}
	delete(r.refusals, about)
	return one.what
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
