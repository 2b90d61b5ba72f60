// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	// coverSettles is how long a bound port waits before it is published: the API does not say when a policy is enforced.
	coverSettles = time.Second
	// pendingFor is how long a Service that does not ask again is mirrored although it has no route slices.
	pendingFor = time.Minute
)

// mirrorReconciler follows the NetworkPolicies of the apps' namespaces with those of the interceptors' pods. There is one request for
// all routes. The Services' plans ask it (cover) before an interceptor listens on a new port.
//
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=list;watch
type mirrorReconciler struct {
	Options

	client    client.Client
	workloads *workloadClient
	ports     *portBook
	// asked makes it reconcile. It holds one element.
	asked chan event.TypedGenericEvent[types.NamespacedName]

	mu      sync.Mutex // protects the fields below
	pending map[types.NamespacedName]pendingFront
	// covers are the bound ports of the last round; nil before the first one.
	covers  map[int32]coverage
	refused map[int32]bool
	failed  injector.Skip // why the last round failed
}

// pendingFront is a Front that has no route slices yet.
type pendingFront struct {
	routes api.Routes
	asked  time.Time
}

// coverage is since when a port is bound to the same callers.
type coverage struct {
	key   string
	since time.Time
}

func newMirror(o Options, c client.Client, ws *workloadClient, ports *portBook) *mirrorReconciler {
	r := &mirrorReconciler{
		Options: o, client: c, workloads: ws, ports: ports, pending: map[types.NamespacedName]pendingFront{},
		asked: make(chan event.TypedGenericEvent[types.NamespacedName], 1),
	}
	r.ask() // there may be nothing to watch that leads to the first round
	return r
}

func (r *mirrorReconciler) ask() {
	select {
	case r.asked <- event.TypedGenericEvent[types.NamespacedName]{Object: r.request().NamespacedName}:
	default: // a round is about to begin
	}
}

func (r *mirrorReconciler) request() ctrl.Request {
	return ctrl.Request{NamespacedName: types.NamespacedName{Namespace: r.Namespace, Name: r.InterceptorService}}
}

// Reconcile mirrors all routes.
func (r *mirrorReconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	now := r.Now()
	ports, next, err := r.mirrored(ctx, now)
	if err != nil {
		return ctrl.Result{}, err
	}
	mirror, err := r.mirror(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	want, refused := mirror.Policies(ports)
	have, err := r.policies(ctx, client.InNamespace(r.Namespace), client.MatchingLabels{injector.MirrorLabel: mirror.Name})
	if err != nil {
		return ctrl.Result{}, err
	}
	versions := map[string]string{}
	for _, p := range have {
		versions[p.Name] = p.ResourceVersion
	}
	for _, step := range mirror.Steps(have, want) {
		if err := r.write(ctx, versions, step); err != nil {
			r.fails(err)
			return ctrl.Result{}, err
		}
	}
	r.covered(ports, refused, now)
	return ctrl.Result{RequeueAfter: next}, nil
}

// write carries out a step. If somebody has changed a policy meanwhile, the API server says so, and the next round begins with it.
func (r *mirrorReconciler) write(ctx context.Context, versions map[string]string, step injector.MirrorStep) error {
	p := step.Policy.DeepCopy()
	p.ResourceVersion = versions[p.Name]
	var err error
	switch {
	case step.Delete:
		err = client.IgnoreNotFound(r.client.Delete(ctx, p))
	case p.ResourceVersion == "":
		err = r.client.Create(ctx, p)
	default:
		err = r.client.Update(ctx, p)
	}
	if err != nil {
		return fmt.Errorf("writing networkpolicy %s/%s: %w", p.Namespace, p.Name, err)
	}
	versions[p.Name] = p.ResourceVersion
	log.FromContext(ctx).Info("An interceptors' NetworkPolicy is written", "policy", p.Name, "rules", len(p.Spec.Ingress),
		"deleted", step.Delete)
	return nil
}

// fails remembers why a round failed, if trying again may not help.
func (r *mirrorReconciler) fails(err error) {
	refusal, refused := injector.RefusalOf(err)
	if !refused {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = injector.Skip(fmt.Sprintf("NetworkPolicies are not followed on the interceptors' pods, because a write in namespace %s is "+
		"refused: %s. %s", r.Namespace, refusal.Why, refusal.Advice))
}

// covered remembers a round.
func (r *mirrorReconciler) covered(ports []injector.MirroredPort, refused map[int32]bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.covers
	r.covers, r.refused, r.failed = map[int32]coverage{}, refused, ""
	for _, p := range ports {
		key := p.Callers.Key()
		if key == "" {
			continue
		}
		c := coverage{key, now}
		if known, ok := before[p.Listen]; ok && known.key == key {
			c = known
		}
		r.covers[p.Listen] = c
	}
}

// mirror returns who the interceptors and the controllers are.
func (r *mirrorReconciler) mirror(ctx context.Context) (injector.Mirror, error) {
	m := injector.Mirror{
		Namespace: r.Namespace, Name: r.InterceptorService + "-routes", Low: r.PortLow, High: r.PortHigh, Own: r.InterceptorIngress,
	}
	own := &corev1.Service{}
	if err := r.client.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.InterceptorService}, own); err != nil {
		return m, fmt.Errorf("getting the interceptors' service: %w", err)
	}
	m.Interceptors = own.Spec.Selector
	if r.Deployment == "" {
		return m, nil
	}
	deployment := &appsv1.Deployment{}
	err := r.client.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Deployment}, deployment)
	if client.IgnoreNotFound(err) != nil {
		return m, fmt.Errorf("getting own deployment: %w", err)
	}
	if err == nil && deployment.Spec.Selector != nil {
		m.Controllers = deployment.Spec.Selector.MatchLabels
		m.Owner = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: deployment.Name, UID: deployment.UID}}
	}
	return m, nil
}

func (r *mirrorReconciler) policies(ctx context.Context, options ...client.ListOption) ([]networkingv1.NetworkPolicy, error) {
	var list networkingv1.NetworkPolicyList
	if err := r.client.List(ctx, &list, options...); err != nil {
		return nil, fmt.Errorf("listing networkpolicies: %w", err)
	}
	return list.Items, nil
}

// mirrored returns the interceptor ports of all routes, and when to look again.
func (r *mirrorReconciler) mirrored(ctx context.Context, now time.Time) (ports []injector.MirroredPort, next time.Duration, err error) {
	all, err := r.policies(ctx, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, 0, err
	}
	byNamespace := map[string][]networkingv1.NetworkPolicy{}
	for _, p := range all {
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
	}
	fronts, next, err := r.fronts(ctx, now)
	if err != nil {
		return nil, 0, err
	}
	for front, routes := range fronts {
		policies := byNamespace[front.Namespace]
		if len(policies) == 0 {
			continue // open, as all ports are that no policy is about
		}
		own, err := r.routed(ctx, front, routes, policies)
		if err != nil {
			return nil, 0, err
		}
		ports = append(ports, own...)
	}
	return ports, next, nil
}

// fronts returns all routes by the Service whose traffic they take: those of the route slices, and those that are about to have some.
func (r *mirrorReconciler) fronts(ctx context.Context, now time.Time) (map[types.NamespacedName]api.Routes, time.Duration, error) {
	var list discoveryv1.EndpointSliceList
	err := r.client.List(ctx, &list, client.MatchingLabels{api.RoleLabel: api.RoleRoute}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, 0, fmt.Errorf("listing all route slices: %w", err)
	}
	fronts := map[types.NamespacedName]api.Routes{}
	for i := range list.Items {
		s := &list.Items[i]
		if routes, ok := routesOf(s); ok {
			fronts[types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}] = routes
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	next := time.Duration(0)
	for front, p := range r.pending {
		if now.Sub(p.asked) > pendingFor {
			delete(r.pending, front)
			continue
		}
		next = pendingFor
		routes := fronts[front]
		p.routes.Ports = slices.Concat(routes.Ports, slices.DeleteFunc(slices.Clone(p.routes.Ports), func(n api.Port) bool {
			return slices.ContainsFunc(routes.Ports, func(o api.Port) bool { return o.Listen == n.Listen })
		}))
		fronts[front] = p.routes
	}
	return fronts, next, nil
}

// routed returns the ports of one Front. Those that the front does not own are left out: somebody else may have written that slice.
func (r *mirrorReconciler) routed(ctx context.Context, front types.NamespacedName, routes api.Routes, policies []networkingv1.NetworkPolicy,
) ([]injector.MirroredPort, error) {
	service := &corev1.Service{}
	if err := r.client.Get(ctx, types.NamespacedName{Namespace: front.Namespace, Name: routes.Service}, service); err != nil {
		return nil, client.IgnoreNotFound(err) // its slices are about to go
	}
	target, err := r.workloads.get(ctx, front.Namespace, routes.Workload.String())
	if err != nil {
		return nil, err
	}
	pods := podsOf(service, target)
	var out []injector.MirroredPort
	for _, p := range routes.Ports {
		owns, err := r.ports.owns(ctx, injector.PortOwner{Namespace: front.Namespace, Service: front.Name, Port: p.Name}, p.Listen)
		if err != nil {
			return nil, err
		}
		if owns {
			out = append(out, injector.MirroredPort{Namespace: front.Namespace, Listen: p.Listen, Callers: callers(service, pods, policies, p)})
		}
	}
	return out, nil
}

// callers returns who may call on the port of a route. A port that the Service does not have any more leads to the number that it had.
func callers(service *corev1.Service, pods injector.Pods, policies []networkingv1.NetworkPolicy, port api.Port) injector.Callers {
	for _, p := range service.Spec.Ports {
		if p.Name == port.Name {
			return pods.Callers(policies, p)
		}
	}
	return pods.Callers(policies, corev1.ServicePort{Port: port.Port})
}

// podsOf is injector.PodsOf for a workload of any kind: custom resources usually have their pod template where Deployments do.
func podsOf(service *corev1.Service, target injector.Target) injector.Pods {
	w := target.Workload
	if custom, ok := target.Object.(*unstructured.Unstructured); ok {
		if text, found, _ := unstructured.NestedMap(custom.Object, "spec", "template"); found {
			template := &corev1.PodTemplateSpec{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(text, template); err == nil {
				w.Template, w.PodLabels = template, template.Labels
			}
		}
	}
	return injector.PodsOf(service, w)
}
