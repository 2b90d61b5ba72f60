// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// The pauses before another look at something that no watch reports, and before an error is retried. They double.
const (
	retryMin = 20 * time.Millisecond
	retryMax = 5 * time.Second
)

func newRetries() workqueue.TypedRateLimiter[types.NamespacedName] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](retryMin, retryMax)
}

// serviceReconciler injects opted-in Services and restores them. It observes, lets injector.PlanService plan, and carries the plan
// out.
//
// +kubebuilder:rbac:groups="",resources=services,verbs=create;update;patch;delete
// +kubebuilder:rbac:groups=networking.k8s.io,resources=ingresses,verbs=patch
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=get;create;update;patch;delete
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices/restricted,verbs=create
// +kubebuilder:rbac:groups=keda.sh,resources=scaledobjects,verbs=create
type serviceReconciler struct {
	client   client.Client
	observer *serviceObserver
	events   *recorder
	now      func() time.Time
	retries  workqueue.TypedRateLimiter[types.NamespacedName]

	mu       sync.Mutex // protects memories
	memories map[types.NamespacedName]injector.Memory
}

// Reconcile brings one Service a step closer to what its opt-in asks for.
func (r *serviceReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if !r.observer.keda.settled() {
		return ctrl.Result{RequeueAfter: settling}, nil
	}
	service := &corev1.Service{}
	if err := r.client.Get(ctx, req.NamespacedName, service); apierrors.IsNotFound(err) {
		return ctrl.Result{}, r.gone(ctx, req.NamespacedName)
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("getting service %s: %w", req.NamespacedName, err)
	}
	if _, ours := injector.CompanionOf(service); ours || !service.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	plan, err := r.observer.plan(ctx, service, r.memory(req.NamespacedName))
	if err != nil {
		return ctrl.Result{}, err
	}
	outcome, err := r.execute(ctx, req.Namespace, plan)
	if err == nil {
		r.remember(ctx, req.NamespacedName, outcome.Memory)
		r.events.emit(ctx, outcome.Reports...)
		if plan.Forget {
			r.events.forget(req.NamespacedName)
		}
	}
	reason, consequence := injector.ReasonRefused, "It stays as it is"
	if plan.Injecting {
		reason, consequence = injector.ReasonSkipped, "Not injected"
	}
	return r.events.finish(ctx, req.NamespacedName, reason, consequence, r.result(req.NamespacedName, outcome), err, service)
}

// result says when to look at the Service again.
func (r *serviceReconciler) result(key types.NamespacedName, o injector.Outcome) ctrl.Result {
	if o.Soon {
		soon := r.retries.When(key)
		if o.After > 0 {
			soon = min(soon, o.After)
		}
		return ctrl.Result{RequeueAfter: soon}
	}
	r.retries.Forget(key)
	if o.Spread {
		o.After = wait.Jitter(o.After, 0.2)
	}
	return ctrl.Result{RequeueAfter: o.After}
}

// memory returns what is remembered about a Service.
func (r *serviceReconciler) memory(key types.NamespacedName) injector.Memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.memories[key]
}

func (r *serviceReconciler) remember(ctx context.Context, key types.NamespacedName, m injector.Memory) {
	r.mu.Lock()
	before := r.memories[key].Phase
	if m.Phase == injector.PhaseAbsent && m.Waits == "" && len(m.Reported) == 0 {
		delete(r.memories, key) // like most Services of a cluster
	} else {
		r.memories[key] = m
	}
	r.mu.Unlock()
	if before != m.Phase && (before != "" || m.Phase != injector.PhaseAbsent) {
		log.FromContext(ctx).Info("Service changes phase", "from", before, "to", m.Phase)
	}
}

// gone forgets a deleted Service, and deletes its route slices. Kubernetes would delete them too, but later, and clients would wait
// until then.
func (r *serviceReconciler) gone(ctx context.Context, key types.NamespacedName) error {
	r.observer.forget(key)
	r.observer.restarts.forget(key)
	r.events.forget(key)
	r.retries.Forget(key)
	r.mu.Lock()
	delete(r.memories, key)
	r.mu.Unlock()
	slices, err := routeSlices(ctx, r.client, key)
	if err != nil {
		return err
	}
	for i := range slices {
		if _, err := r.delete(ctx, &slices[i]); err != nil {
			return err
		}
	}
	return nil
}

// execute carries a plan out, in its order, and returns the resulting Outcome.
func (r *serviceReconciler) execute(ctx context.Context, namespace string, p injector.Plan) (injector.Outcome, error) {
	if _, err := r.deleteAll(ctx, p.Sweep); err != nil {
		return p.Outcome, err
	}
	if err := r.try(ctx, p); err != nil {
		return p.Outcome, err
	}
	for _, o := range p.Apply {
		if err := r.apply(ctx, o); err != nil {
			return p.Outcome, err
		}
	}
	for _, ask := range p.Ask {
		done, err := r.ask(ctx, ask)
		switch {
		case err != nil:
			return p.Outcome, err
		case !done:
			return ask.Ignored, nil
		case ask.Granted != nil:
			return *ask.Granted, nil
		}
	}
	deleted, err := r.deleteAll(ctx, p.Delete)
	if err != nil {
		return p.Outcome, err
	}
	for _, name := range p.FreePorts {
		r.observer.ports.free(types.NamespacedName{Namespace: namespace, Name: name}, r.now())
	}
	if deleted {
		r.events.emit(ctx, p.Deleted...)
	}
	return p.Outcome, nil
}

// try lets the API server validate a ScaledObject in a dry run.
func (r *serviceReconciler) try(ctx context.Context, p injector.Plan) error {
	if p.Try == nil {
		return nil
	}
	err := r.client.Create(ctx, p.Try, client.DryRunAll)
	if err == nil || apierrors.IsAlreadyExists(err) || strings.Contains(err.Error(), "does not support dry run") {
		return nil // if a webhook does not support dry runs, the write itself will tell
	}
	return fmt.Errorf("trying scaledobject %s: %w", client.ObjectKeyFromObject(p.Try), err)
}

// apply creates an object, or updates it if it has a resource version.
func (r *serviceReconciler) apply(ctx context.Context, o client.Object) error {
	verb, write := "updating", func() error { return r.client.Update(ctx, o) }
	if o.GetResourceVersion() == "" {
		verb, write = "creating", func() error { return r.client.Create(ctx, o) }
	}
	if err := write(); err != nil {
		return fmt.Errorf("%s %T %s: %w", verb, o, client.ObjectKeyFromObject(o), err)
	}
	return nil
}

// ask writes annotations through admission, and reports whether admission has granted the request.
func (r *serviceReconciler) ask(ctx context.Context, ask injector.Ask) (done bool, err error) {
	for _, w := range ask.Writes {
		text := "null"
		if w.Value != "" {
			text = strconv.Quote(w.Value)
		}
		version := ""
		if _, shared := w.Object.(*networkingv1.Ingress); shared {
			// Reconciles of two backends may work on one Ingress. Neither may overwrite a change that it has not read.
			version = fmt.Sprintf(`"resourceVersion":%q,`, w.Object.GetResourceVersion())
		}
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{%s"annotations":{%q:%s}}}`, version, w.Key, text))
		if err := r.client.Patch(ctx, w.Object, patch, client.FieldOwner(injector.ManagedBy)); err != nil {
			return false, fmt.Errorf("annotating %s: %w", client.ObjectKeyFromObject(w.Object), err)
		}
	}
	return ask.Done(), nil
}

// deleteAll deletes objects. It reports whether one of them still existed.
func (r *serviceReconciler) deleteAll(ctx context.Context, objects []injector.Object) (deleted bool, err error) {
	for _, o := range objects {
		one, err := r.delete(ctx, o)
		if err != nil {
			return deleted, err
		}
		if _, routes := o.(*discoveryv1.EndpointSlice); routes {
			deleted = deleted || one
		}
	}
	return deleted, nil
}

// delete deletes exactly the object that was read, and reports whether it still existed.
func (r *serviceReconciler) delete(ctx context.Context, o client.Object) (bool, error) {
	uid := o.GetUID()
	err := r.client.Delete(ctx, o, client.Preconditions{UID: &uid})
	if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
		return false, fmt.Errorf("deleting %s: %w", client.ObjectKeyFromObject(o), err)
	}
	return err == nil, nil
}

// routeSlices returns the route slices that were made for a Service.
func routeSlices(ctx context.Context, c client.Reader, service types.NamespacedName) ([]discoveryv1.EndpointSlice, error) {
	return slicesOf(ctx, c, service, api.RoleRoute)
}

// slicesOf returns the EndpointSlices with that role that were made for a Service.
func slicesOf(ctx context.Context, c client.Reader, service types.NamespacedName, role string) ([]discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	err := c.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingFields{byService: role + "/" + service.Name})
	if err != nil {
		return nil, fmt.Errorf("listing %s slices of %s: %w", role, service, err)
	}
	return list.Items, nil
}
