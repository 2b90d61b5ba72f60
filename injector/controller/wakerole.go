// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// wakeRoleReconciler keeps the Roles by which the interceptors may wake the workloads of published routes, and no others. There is one
// request for each namespace, whose name it has. The Services' plans ask it (right) before they publish a route.
//
// A Role names the workload before the route is published, and until its slices are deleted. The controllers may grant only what they
// may do themselves, so they have the interceptors' rights.
//
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=roles;rolebindings,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups=apps,resources=deployments/scale;statefulsets/scale,verbs=get;patch
type wakeRoleReconciler struct {
	rules  injector.WakeRoles
	client client.Client
	live   client.Reader
	now    func() time.Time
	// namespaces are to be reconciled, and services are Services that wait for a right, or have lost it.
	namespaces, services *bell

	mu     sync.Mutex // protects spaces
	spaces map[string]*wakeSpace
}

// wakeSpace is what is known about a namespace.
type wakeSpace struct {
	// pending are the Fronts that ask for a right and have no route slices that lead to the workload yet, by name.
	pending map[string]pendingWake
	// granted are the workloads that the interceptors may wake according to the last round, and failed says why they may not wake others.
	granted map[injector.Wakeable]bool
	failed  map[injector.Wakeable]injector.Skip
	// since is when the first of a series of rounds failed.
	since time.Time
}

type pendingWake struct {
	service  string
	workload injector.Wakeable
	asked    time.Time
}

// wakeRoles are the Roles of a namespace, and their bindings.
type wakeRoles struct {
	roles    []rbacv1.Role
	bindings []rbacv1.RoleBinding
}

func newWakeRoles(o Options, c client.Client, live client.Reader) *wakeRoleReconciler {
	return &wakeRoleReconciler{
		rules:  injector.WakeRoles{Account: types.NamespacedName{Namespace: o.Namespace, Name: o.InterceptorAccount}},
		client: c, live: live, now: o.Now, namespaces: newBell(), services: newBell(), spaces: map[string]*wakeSpace{},
	}
}

// Reconcile brings the Roles of a namespace to what its routes need.
func (r *wakeRoleReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	namespace := req.Name
	routed, next, err := r.routed(ctx, namespace)
	if err != nil {
		return ctrl.Result{}, err
	}
	workloads := slices.Collect(maps.Keys(routed))
	var have wakeRoles
	var want []rbacv1.Role
	var left []injector.Wakeable
	var failures map[string]error
	for _, from := range []client.Reader{r.client, r.live} { // the cache may not show yet what the last round has written
		if have, err = readWakeRoles(ctx, from, namespace); err != nil {
			return ctrl.Result{}, err
		}
		want, left = r.rules.Roles(namespace, have.roles, workloads)
		if failures = r.carryOut(ctx, r.rules.Steps(have.roles, have.bindings, want)); !outdated(failures) {
			break
		}
	}
	refused, err := r.settle(namespace, routed, have, want, left, failures)
	if err != nil {
		return ctrl.Result{}, err
	}
	if refused > 0 {
		next = wait.Jitter(refused, 0.2)
	}
	return ctrl.Result{RequeueAfter: next}, nil
}

// outdated reports whether a write failed because it was based on an old state.
func outdated(failures map[string]error) bool {
	for _, err := range failures {
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
			return true
		}
	}
	return false
}

func readWakeRoles(ctx context.Context, c client.Reader, namespace string) (wakeRoles, error) {
	var roles rbacv1.RoleList
	var bindings rbacv1.RoleBindingList
	ours := client.MatchingLabels{injector.ManagedByLabel: injector.ManagedBy}
	for _, list := range []client.ObjectList{&roles, &bindings} {
		if err := c.List(ctx, list, client.InNamespace(namespace), ours); err != nil {
			return wakeRoles{}, fmt.Errorf("listing the roles of namespace %s: %w", namespace, err)
		}
	}
	return wakeRoles{roles.Items, bindings.Items}, nil
}

// routed returns the workloads to which the routes of a namespace lead, or are about to, with their Services, and when to look again.
func (r *wakeRoleReconciler) routed(ctx context.Context, namespace string) (map[injector.Wakeable][]string, time.Duration, error) {
	var list discoveryv1.EndpointSliceList
	err := r.client.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{api.RoleLabel: api.RoleRoute},
		client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, 0, fmt.Errorf("listing the route slices of namespace %s: %w", namespace, err)
	}
	var services corev1.ServiceList
	if len(list.Items) > 0 {
		if err := r.client.List(ctx, &services, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil, 0, fmt.Errorf("listing the services of namespace %s: %w", namespace, err)
		}
	}
	owners := make(map[string]types.UID, len(services.Items))
	for i := range services.Items {
		owners[services.Items[i].Name] = services.Items[i].UID
	}
	routed, fronts := map[injector.Wakeable][]string{}, map[string]injector.Wakeable{}
	for i := range list.Items {
		s := &list.Items[i]
		routes, ok := routesOf(s)
		if !ok || !ownedBy(s, owners[routes.Service]) { // somebody else may have written it
			continue
		}
		w := injector.WakeableOf(routes.Workload)
		routed[w] = append(routed[w], routes.Service)
		fronts[s.Labels[discoveryv1.LabelServiceName]] = w
	}
	return routed, r.addPending(namespace, routed, fronts), nil
}

// addPending adds the workloads of Fronts that are about to have route slices. It forgets those that have some.
func (r *wakeRoleReconciler) addPending(namespace string, routed map[injector.Wakeable][]string, fronts map[string]injector.Wakeable,
) (next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	space := r.spaces[namespace]
	if space == nil {
		return 0
	}
	for front, p := range space.pending {
		if fronts[front] == p.workload || r.now().Sub(p.asked) > pendingFor {
			delete(space.pending, front)
			continue
		}
		next = pendingFor
		routed[p.workload] = append(routed[p.workload], p.service)
	}
	return next
}

// carryOut writes. A failure ends the steps for the same name. failures has it, by that name.
func (r *wakeRoleReconciler) carryOut(ctx context.Context, steps []injector.WakeRoleStep) (failures map[string]error) {
	failures = map[string]error{}
	for _, step := range steps {
		name := step.Object.GetName()
		if failures[name] != nil {
			continue
		}
		if err := r.write(ctx, step); err != nil {
			failures[name] = err
		}
	}
	return failures
}

func (r *wakeRoleReconciler) write(ctx context.Context, step injector.WakeRoleStep) error {
	o, verb := step.Object, "creating"
	var err error
	switch {
	case step.Delete:
		verb, err = "deleting", client.IgnoreNotFound(r.client.Delete(ctx, o, client.Preconditions{UID: new(o.GetUID())}))
	case o.GetResourceVersion() != "":
		verb, err = "updating", r.client.Update(ctx, o)
	default:
		err = r.exists(ctx, o, r.client.Create(ctx, o))
	}
	kind := "Role"
	if _, binding := o.(*rbacv1.RoleBinding); binding {
		kind = "RoleBinding"
	}
	if err != nil {
		refusal, refused := injector.RefusalOf(err)
		if foreign, ok := err.(*refusedError); ok { //nolint:errorlint // exists has just made it
			refusal, refused = foreign.Refusal, true
		}
		err = fmt.Errorf("%s %s %s/%s: %w", verb, kind, o.GetNamespace(), o.GetName(), err)
		if refused {
			err = &refusedError{Refusal: refusal, what: verb + " " + kind + " " + o.GetName(), object: o, err: err}
		}
		return err
	}
	log.FromContext(ctx).V(1).Info("What the interceptors may wake is written", "verb", verb, "kind", kind, "name", o.GetName())
	return nil
}

// exists turns the error that an object exists already into a refusal, unless it is ours.
func (r *wakeRoleReconciler) exists(ctx context.Context, o client.Object, err error) error {
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	have, _ := o.DeepCopyObject().(client.Object)
	if failed := r.live.Get(ctx, client.ObjectKeyFromObject(o), have); failed != nil || injector.IsWakeRole(have) {
		return err
	}
	return &refusedError{Refusal: injector.ForeignRole(have), err: err}
}

// settle remembers a round, and tells the Services that it concerns. If a write was refused, it says when to try it again. Other
// failures are returned.
func (r *wakeRoleReconciler) settle(namespace string, routed map[injector.Wakeable][]string, had wakeRoles, want []rbacv1.Role,
	left []injector.Wakeable, failures map[string]error,
) (again time.Duration, err error) {
	failed := make(map[string]bool, len(failures))
	why := map[injector.Wakeable]injector.Skip{}
	refused := false
	for name, failure := range failures {
		failed[name] = true
		if refusal, ok := failure.(*refusedError); ok { //nolint:errorlint // write has made it
			refused = true
			for _, w := range injector.WakeablesOf(want, name) {
				why[w] = injector.NotGranted(w, refusal.what, refusal.Refusal)
			}
		} else if !terminating(failure) {
			err = failure
		}
	}
	for _, w := range left {
		why[w] = injector.NoRoleLeft(w)
	}
	granted := r.rules.Granted(had.roles, had.bindings, want, failed)
	maps.DeleteFunc(why, func(w injector.Wakeable, _ injector.Skip) bool { return granted[w] })
	r.mu.Lock()
	defer r.mu.Unlock()
	space := r.spaces[namespace]
	if space == nil {
		space = &wakeSpace{}
	}
	for w, services := range routed {
		if space.failed[w] != why[w] {
			r.services.ring(namespace, services...)
		}
	}
	for _, p := range space.pending {
		if granted[p.workload] {
			r.services.ring(namespace, p.service)
		}
	}
	space.granted, space.failed = granted, why
	if !refused {
		space.since = time.Time{}
	} else {
		if space.since.IsZero() {
			space.since = r.now()
		}
		again = min(max(r.now().Sub(space.since)/2, refusedMin), refusedMax)
	}
	if len(routed) == 0 && len(space.pending) == 0 {
		delete(r.spaces, namespace)
	} else {
		r.spaces[namespace] = space
	}
	return again, err
}

func terminating(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// right says whether the interceptors may wake the workload to which a Front's routes are to lead. published is set if they lead there
// already.
func (r *wakeRoleReconciler) right(service types.NamespacedName, front string, w injector.Wakeable, published bool) *injector.WakeRight {
	r.mu.Lock()
	defer r.mu.Unlock()
	space := r.spaces[service.Namespace]
	if space == nil {
		space = &wakeSpace{}
		r.spaces[service.Namespace] = space
	}
	granted := space.granted[w]
	if !published {
		if space.pending == nil {
			space.pending = map[string]pendingWake{}
		}
		known := space.pending[front].workload == w
		space.pending[front] = pendingWake{service.Name, w, r.now()}
		if !known {
			r.namespaces.ring("", service.Namespace)
		}
	}
	switch {
	case granted:
		return &injector.WakeRight{}
	case space.failed[w] != "":
		return &injector.WakeRight{Lacks: space.failed[w], Lasting: true}
	default:
		return &injector.WakeRight{Lacks: injector.Skip(fmt.Sprintf("the interceptors may not wake %s yet", w))}
	}
}

// forget is for a Front that is gone.
func (r *wakeRoleReconciler) forget(front types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if space := r.spaces[front.Namespace]; space != nil {
		if _, known := space.pending[front.Name]; known {
			delete(space.pending, front.Name)
			r.namespaces.ring("", front.Namespace)
		}
	}
}
