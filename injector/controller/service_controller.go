// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// retry is how soon a step that waits for somebody else (an interceptor that is to listen, Kubernetes that is to list
// pods) is looked at again, where no watch says so.
const retry = 100 * time.Millisecond

// settling is how long a Service may lack what it needs before anybody is told: Helm creates Services before workloads.
const settling = 5 * time.Second

// patience is how soon such a step is looked at again when it has lasted for longer than settling.
const patience = 5 * time.Second

// ServiceReconciler takes opted-in Services over and gives them back.
type ServiceReconciler struct {
	Options

	client client.Client
	// live reads from the API server: the cache leaves out what we look at once in a Service's life.
	live      client.Reader
	stories   *storyteller
	keda      *atomic.Bool // whether KEDA's API is there
	workloads *workloads
	gateway   *gatewayWatch
	blocked   blockedWays
	learned   *learned

	portsOnce sync.Mutex // protects ports, and its first filling
	ports     *injector.Ports
}

// entrance is one way by which traffic of a Service comes in, and can be taken over: the Service itself, or, where only
// Ingresses are opted in, the alias Service to which these are led.
type entrance struct {
	alias bool
	// front is the Service whose traffic the route slices take: the opted-in one, or its alias, which is nil while there
	// is none.
	front  *corev1.Service
	slices []discoveryv1.EndpointSlice // the route slices
	routes api.Routes                  // what they say; zero if they say nothing that can be read
	// unproven is their injector.UnprovenAnnotation.
	unproven string
}

// owned is what there is of ours around a Service.
type owned struct {
	self, alias entrance
	direct      *corev1.Service // nil if there is none
}

// workload is the one that the entrance to be taken leads to already; zero if it is not taken over.
func (o owned) workload(t take) api.Workload { return o.entrance(t).routes.Workload }

// entrance is the one to be taken.
func (o owned) entrance(t take) entrance {
	if t == takeIngresses {
		return o.alias
	}
	return o.self
}

// Reconcile brings one Service to where its opt-in wants it.
func (r *ServiceReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	service := &corev1.Service{}
	if err := r.client.Get(ctx, req.NamespacedName, service); apierrors.IsNotFound(err) {
		r.freePorts(req.NamespacedName)
		r.freePorts(types.NamespacedName{Namespace: req.Namespace, Name: injector.AliasServiceName(req.Name)})
		r.stories.forget(req.NamespacedName)
		r.blocked.forget(req.NamespacedName)
		return ctrl.Result{}, r.removeOrphans(ctx, req.NamespacedName)
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("getting service %s: %w", req.NamespacedName, err)
	}
	if !service.DeletionTimestamp.IsZero() || service.Labels[injector.ManagedByLabel] == injector.ManagedBy {
		return ctrl.Result{}, nil
	}
	v, result, err := r.bring(ctx, service)
	reason, consequence := reasonRefused, "It stays as it is"
	if v.take != takeNothing && !v.taken {
		reason, consequence = reasonSkipped, "Not taken over"
	}
	return r.stories.settle(ctx, req.NamespacedName, reason, consequence, result, err, service)
}

// bring does that, and returns what it has decided, as far as it came.
func (r *ServiceReconciler) bring(ctx context.Context, service *corev1.Service) (verdict, ctrl.Result, error) {
	ingresses, err := backingOf(ctx, r.client, service)
	if err != nil {
		return verdict{}, ctrl.Result{}, err
	}
	own, err := r.owned(ctx, service)
	if err != nil {
		return verdict{}, ctrl.Result{}, err
	}
	v, err := r.judge(ctx, service, own, ingresses)
	if err != nil {
		return v, ctrl.Result{}, err
	}
	v.taken = r.taken(service, entrance{alias: v.take == takeIngresses}, ingresses)
	result, err := r.apply(ctx, service, own, ingresses, v)
	if err != nil {
		return v, ctrl.Result{}, err
	}
	return v, result, nil
}

// apply takes over the entrance that the verdict says, first, and then gives back what it does not say.
func (r *ServiceReconciler) apply(ctx context.Context, service *corev1.Service, own owned, ingresses backing, v verdict) (ctrl.Result, error) {
	wanted, other := &own.self, &own.alias
	if v.take == takeIngresses {
		wanted, other = other, wanted
	}
	if v.take != takeNothing {
		result, done, err := r.inject(ctx, service, wanted, own.direct, ingresses, v)
		if err != nil || !done {
			return result, err
		}
		unvisited, err := r.warnUnvisited(ctx, service, *wanted, ingresses, v)
		if err != nil {
			return ctrl.Result{}, err
		}
		back, err := r.withdraw(ctx, service, other, ingresses, v)
		return soonest(soonest(soonest(result, unvisited), back), ctrl.Result{RequeueAfter: v.retry}), err
	}
	self, err := r.withdraw(ctx, service, &own.self, ingresses, v)
	if err != nil {
		return ctrl.Result{}, err
	}
	alias, err := r.withdraw(ctx, service, &own.alias, ingresses, v)
	if err != nil {
		return ctrl.Result{}, err
	}
	result := soonest(self, alias)
	if result.IsZero() {
		if own.direct != nil {
			if _, err := r.delete(ctx, own.direct); err != nil {
				return ctrl.Result{}, err
			}
		}
		result.RequeueAfter = v.retry
		switch young := settling - r.Now().Sub(service.CreationTimestamp.Time); {
		case v.skip == "":
			r.stories.forget(client.ObjectKeyFromObject(service)) // who opts it in again is told again
			r.blocked.forget(client.ObjectKeyFromObject(service))
		case young > 0:
			result.RequeueAfter = young
		case v.general: // its namespace is opted in, not this Service in particular
			r.stories.tellOnce(ctx, corev1.EventTypeNormal, reasonSkipped, "Not taken over: "+string(v.skip), service)
		default:
			r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonSkipped, "Not taken over: "+string(v.skip), service)
		}
	}
	return result, nil
}

// soonest is the result that comes back first.
func soonest(a, b ctrl.Result) ctrl.Result {
	if a.RequeueAfter == 0 || b.RequeueAfter != 0 && b.RequeueAfter < a.RequeueAfter {
		return b
	}
	return a
}

// owned collects what is ours around the Service. What is left of a Service of the same name that was deleted before is
// deleted: Kubernetes would do it too, in its own time.
func (r *ServiceReconciler) owned(ctx context.Context, service *corev1.Service) (owned, error) {
	own := owned{self: entrance{front: service}, alias: entrance{alias: true}}
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingLabels{
		api.RoleLabel: api.RoleRoute, injector.ServiceLabel: service.Name,
	}); err != nil {
		return own, fmt.Errorf("listing route slices of %s: %w", client.ObjectKeyFromObject(service), err)
	}
	for _, s := range list.Items {
		if !ownedBy(&s, service.UID) {
			if _, err := r.delete(ctx, &s); err != nil {
				return own, err
			}
			continue
		}
		e := &own.self
		if s.Labels[discoveryv1.LabelServiceName] != service.Name {
			e = &own.alias
		}
		e.slices = append(e.slices, s)
		e.unproven = cmp.Or(e.unproven, s.Annotations[injector.UnprovenAnnotation])
		if routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation]); err == nil {
			e.routes = routes
		} else {
			log.FromContext(ctx).Info("Rewriting a route slice", "slice", s.Name, "reason", err.Error())
		}
	}
	var err error
	if own.direct, err = r.companion(ctx, service, injector.DirectServiceName(service.Name)); err != nil {
		return own, err
	}
	own.alias.front, err = r.companion(ctx, service, injector.AliasServiceName(service.Name))
	return own, err
}

// companion returns the Service of ours with that name, or nil if there is none.
func (r *ServiceReconciler) companion(ctx context.Context, service *corev1.Service, name string) (*corev1.Service, error) {
	ours := &corev1.Service{}
	err := r.client.Get(ctx, types.NamespacedName{Namespace: service.Namespace, Name: name}, ours)
	switch {
	case apierrors.IsNotFound(err) || err == nil && ours.Labels[injector.ServiceLabel] != service.Name:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("getting service %s/%s: %w", service.Namespace, name, err)
	case !ownedBy(ours, service.UID):
		_, err := r.delete(ctx, ours)
		return nil, err
	default:
		return ours, nil
	}
}

func ownedBy(o client.Object, uid types.UID) bool {
	for _, ref := range o.GetOwnerReferences() {
		if ref.UID == uid {
			return true
		}
	}
	return false
}

// backing is which Ingresses of the namespace send traffic to the Service.
type backing struct {
	all []networkingv1.Ingress // every Ingress of the namespace
	// optedIn are those labelled ones that have the Service as a backend, by whichever name.
	optedIn []*networkingv1.Ingress
	// led are those that are led to its alias Service.
	led []*networkingv1.Ingress
}

// rewritten says that every opted-in Ingress sends its traffic for the Service to the alias.
func (b backing) rewritten(service string) bool {
	for _, i := range b.optedIn {
		if _, now := injector.Backends(i); slices.Contains(now, service) {
			return false
		}
	}
	return true
}

// backingOf finds the Ingresses, in the order of their names: of two that are opted in with different settings, the later
// one's count.
func backingOf(ctx context.Context, c client.Reader, service *corev1.Service) (backing, error) {
	var b backing
	var list networkingv1.IngressList
	if err := c.List(ctx, &list, client.InNamespace(service.Namespace)); err != nil {
		return b, fmt.Errorf("listing ingresses of namespace %s: %w", service.Namespace, err)
	}
	slices.SortFunc(list.Items, func(a, b networkingv1.Ingress) int { return strings.Compare(a.Name, b.Name) })
	b.all = list.Items
	alias := injector.AliasServiceName(service.Name)
	for i := range list.Items {
		ingress := &list.Items[i]
		author, now := injector.Backends(ingress)
		optedIn, err := injector.OptedIn(ingress)
		if err == nil && optedIn && slices.Contains(author, service.Name) && ingress.DeletionTimestamp.IsZero() {
			b.optedIn = append(b.optedIn, ingress)
		}
		if injector.Aliases(ingress)[service.Name] != "" || slices.Contains(now, alias) {
			b.led = append(b.led, ingress)
		}
	}
	return b, nil
}

// restoring says for how long yet every app is to be given back.
func (r *ServiceReconciler) restoring(ctx context.Context) (time.Duration, error) {
	if r.Deployment == "" {
		return 0, nil
	}
	var own appsv1.Deployment
	err := r.client.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Deployment}, &own)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("getting own deployment: %w", err)
	}
	until, err := time.Parse(time.RFC3339, own.Annotations[injector.RestoringAnnotation])
	if err != nil {
		return 0, nil //nolint:nilerr // there is none, or none of ours
	}
	return max(0, until.Sub(r.Now())), nil
}

// delete deletes the very object that was read, and says whether it was still there.
func (r *ServiceReconciler) delete(ctx context.Context, o client.Object) (bool, error) {
	uid := o.GetUID()
	err := r.client.Delete(ctx, o, client.Preconditions{UID: &uid})
	if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
		return false, fmt.Errorf("deleting %s: %w", client.ObjectKeyFromObject(o), err)
	}
	return err == nil, nil
}
