// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/status"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// maxDials is how many connections one reconcile opens at a time.
const maxDials = 16

// serviceObserver finds out what a plan for a Service depends on.
//
// +kubebuilder:rbac:groups="",resources=services,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=ingresses,verbs=list;watch
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=list;watch
// +kubebuilder:rbac:groups=autoscaling,resources=horizontalpodautoscalers,verbs=list;watch
// +kubebuilder:rbac:groups=keda.sh,resources=scaledobjects,verbs=list;watch
type serviceObserver struct {
	Options

	client    client.Reader
	workloads *workloadClient
	keda      *kedaState
	routes    routeLister
	natives   *natives
	learned   *learned
	ports     *portBook
	restarts  *restarts

	extensions interface {
		served(ctx context.Context, service types.NamespacedName) ([]string, error)
	}
	mirror    *mirrorReconciler   // nil if no NetworkPolicies are read
	wakeRoles *wakeRoleReconciler // nil if the interceptors get their rights from somebody else
}

// routeLister lists the routes of the Gateway API that send traffic to a Service.
type routeLister interface {
	routesTo(ctx context.Context, namespace string, services ...string) ([]injector.GatewayRoute, error)
}

// plan observes a Service until a plan can be made.
func (b *serviceObserver) plan(ctx context.Context, service *corev1.Service, m injector.Memory) (injector.Plan, error) {
	o, err := b.observe(ctx, service, m)
	if err != nil {
		return injector.Plan{}, err
	}
	plan, question := injector.PlanService(o)
	for question.Kind != injector.NoQuestion {
		if err := b.answer(ctx, &o, question); err != nil {
			return injector.Plan{}, err
		}
		plan, question = injector.PlanService(o)
	}
	if o.Answers.Native == nil {
		b.natives.forget(client.ObjectKeyFromObject(service))
	}
	return plan, nil
}

// observe reads the facts that every plan depends on.
func (b *serviceObserver) observe(ctx context.Context, service *corev1.Service, m injector.Memory) (injector.Observation, error) {
	key := client.ObjectKeyFromObject(service)
	o := injector.Observation{Now: b.Now(), Service: service, Namespace: &corev1.Namespace{}, Memory: m, Spoken: b.learned.known()}
	if err := b.client.Get(ctx, types.NamespacedName{Name: service.Namespace}, o.Namespace); err != nil {
		return o, fmt.Errorf("getting namespace %s: %w", service.Namespace, err)
	}
	var err error
	if o.Install, err = b.install(ctx); err != nil {
		return o, err
	}
	if o.Extensions, err = b.extensions.served(ctx, key); err != nil {
		return o, err
	}
	if o.Ingresses, err = ingressesTo(ctx, b.client, key.Namespace, key.Name); err != nil {
		return o, err
	}
	if o.Direct, err = b.companion(ctx, &o, injector.DirectServiceName(service.Name)); err != nil {
		return o, err
	}
	if o.Alias, err = b.companion(ctx, &o, injector.AliasServiceName(service.Name)); err != nil {
		return o, err
	}
	all, err := routeSlices(ctx, b.client, key)
	if err != nil {
		return o, err
	}
	for i := range all {
		if ownedBy(&all[i], service.UID) {
			o.Slices = append(o.Slices, all[i])
		} else {
			o.Leftovers = append(o.Leftovers, &all[i])
		}
	}
	if o.Interceptors, err = b.interceptors(ctx); err != nil {
		return o, err
	}
	o.Doubted = b.restarts.doubted(key)
	if o.Admission, err = b.admission(ctx, service); err != nil {
		return o, err
	}
	direct, err := slicesOf(ctx, b.client, key, api.RoleDirect)
	o.DirectSlices = injector.OnlyPods(direct, o.Interceptors)
	return o, err
}

// install reads the present state of this installation.
func (b *serviceObserver) install(ctx context.Context) (injector.Install, error) {
	i := injector.Install{
		Namespace: b.Namespace, AliasLinger: b.AliasLinger, Follows: b.FollowPolicies, Admits: b.AdmitInterceptors,
		Grants: b.wakeRoles != nil,
	}
	b.keda.describe(&i)
	if b.Deployment == "" {
		return i, nil
	}
	var own appsv1.Deployment
	err := b.client.Get(ctx, types.NamespacedName{Namespace: b.Namespace, Name: b.Deployment}, &own)
	if client.IgnoreNotFound(err) != nil {
		return i, fmt.Errorf("getting own deployment: %w", err)
	}
	if until, err := time.Parse(time.RFC3339, own.Annotations[injector.RestoringAnnotation]); err == nil {
		i.RestoringFor = max(0, until.Sub(b.Now()))
	}
	return i, nil
}

// companion returns our Service with that name, if there is one.
func (b *serviceObserver) companion(ctx context.Context, o *injector.Observation, name string) (injector.Companion, error) {
	found, err := b.service(ctx, o.Service.Namespace, name)
	if err != nil || found == nil {
		return injector.Companion{}, err
	}
	switch made, ours := injector.CompanionOf(found); {
	case !ours || made != o.Service.Name:
		return injector.Companion{Foreign: true}, nil
	case !ownedBy(found, o.Service.UID):
		o.Leftovers = append(o.Leftovers, found)
		return injector.Companion{}, nil
	default:
		return injector.Companion{Service: found}, nil
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

// interceptors returns the ready interceptors.
func (b *serviceObserver) interceptors(ctx context.Context) ([]injector.Interceptor, error) {
	var list discoveryv1.EndpointSliceList
	if err := b.client.List(ctx, &list, client.InNamespace(b.Namespace), client.MatchingLabels{
		api.RoleLabel: api.RoleInterceptor, discoveryv1.LabelServiceName: b.InterceptorService,
	}); err != nil {
		return nil, fmt.Errorf("listing interceptors: %w", err)
	}
	return injector.Interceptors(list.Items), nil
}

// answer finds out what the planner asks.
func (b *serviceObserver) answer(ctx context.Context, o *injector.Observation, q injector.Question) (err error) {
	a, key := &o.Answers, client.ObjectKeyFromObject(o.Service)
	switch q.Kind {
	case injector.AskSurroundings:
		a.Around, err = b.surroundings(ctx, o, pairs(injector.OriginalSelector(o.Service)))
	case injector.AskSiblings:
		a.Siblings, err = b.surroundings(ctx, o, append(pairs(injector.OriginalSelector(o.Service)), pairs(q.Workload.PodLabels)...))
	case injector.AskTarget:
		a.Target, err = b.target(ctx, o, q.Settings)
	case injector.AskPorts:
		a.Listen, a.Full, err = b.ports.get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: q.Front}, o.Now, q.Ports)
	case injector.AskRight:
		a.Right = b.wakeRoles.right(key, q.Front, injector.WakeableOf(q.Workload.Ref()), q.Published)
	case injector.AskCover:
		a.Cover, err = b.cover(ctx, o, q)
	case injector.AskServing:
		counted := b.restarts.counted()
		a.Serving = b.serving(ctx, types.NamespacedName{Namespace: key.Namespace, Name: q.Front}, q.Routes, q.Addresses)
		b.restarts.answered(key, a.Serving.At, counted)
	case injector.AskWay:
		a.Way, err = b.way(ctx, types.NamespacedName{Namespace: key.Namespace, Name: q.Front}, q.Addresses)
	case injector.AskNative:
		var native bool
		native, err = b.natives.ready(ctx, key)
		a.Native = &native
	case injector.AskRouted:
		var found injector.Target
		found, err = b.workloads.get(ctx, key.Namespace, q.Name)
		a.Routed = maps.Clone(a.Routed)
		if a.Routed == nil {
			a.Routed = map[string]injector.Target{}
		}
		a.Routed[q.Name] = found
	case injector.AskKept:
		a.Kept, err = b.kept(ctx, key, q.Workload)
	case injector.AskVisits:
		a.Visits, err = b.visits(ctx, o.Service, q.Workload)
	case injector.AskStack:
		a.Stack, err = b.stack(ctx, key.Namespace, q.Names)
	case injector.NoQuestion:
	}
	return err
}

// stack says which of the named Services exist, and whether they are injected: themselves, or by their Ingresses.
func (b *serviceObserver) stack(ctx context.Context, namespace string, names []string) (map[string]bool, error) {
	out := map[string]bool{}
	for _, name := range names {
		own, err := b.service(ctx, namespace, name)
		if err != nil {
			return nil, err
		}
		if own == nil {
			continue
		}
		alias, err := b.service(ctx, namespace, injector.AliasServiceName(name))
		if err != nil {
			return nil, err
		}
		out[name] = injector.Intercepted(own)
		if alias != nil && !out[name] {
			_, out[name] = injector.CompanionOf(alias)
		}
	}
	return out, nil
}

// service returns the Service of that name, or nil.
func (b *serviceObserver) service(ctx context.Context, namespace, name string) (*corev1.Service, error) {
	found := &corev1.Service{}
	err := b.client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, found)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // there is none
	case err != nil:
		return nil, fmt.Errorf("getting service %s/%s: %w", namespace, name, err)
	}
	return found, nil
}

// surroundings reads what exposes the Services that select pods with one of the labels. A Service that shares pods with
// another shares a label of its selector with it, so these are all that matter.
func (b *serviceObserver) surroundings(ctx context.Context, o *injector.Observation, pairs []string) (*injector.Surroundings, error) {
	around := &injector.Surroundings{InternalServices: o.Namespace.Annotations[injector.InternalServicesAnnotation] == "true"}
	var err error
	if around.Services, err = servicesBy(ctx, b.client, o.Service.Namespace, bySelector, pairs...); err != nil {
		return nil, err
	}
	names := []string{o.Service.Name}
	for i := range around.Services {
		names = append(names, around.Services[i].Name)
	}
	if around.Ingresses, err = ingressesBy(ctx, b.client, o.Service.Namespace, byBackend, names...); err != nil {
		return nil, err
	}
	around.Routes, err = b.routes.routesTo(ctx, o.Service.Namespace, names...)
	return around, err
}

// target finds the workload behind a Service, and what scales it.
func (b *serviceObserver) target(ctx context.Context, o *injector.Observation, s injector.Settings) (*injector.Target, error) {
	t, err := b.workloads.find(ctx, o.Service, s)
	if err != nil || t.Object == nil || t.Skip != "" || t.Forbidden != "" {
		return &t, err
	}
	if t.Workload.Resource != "" && !injector.Selects(o.Service, t.Workload) && !o.RoutesTo(t.Workload) {
		if t.Owns, err = b.workloads.owns(ctx, o.Service, t.Workload); err != nil {
			return nil, err
		}
	}
	t.HPAs, t.ScaledObjects, err = scalersOf(ctx, b.client, t.Workload, b.keda.installed())
	return &t, err
}

// scalersOf returns the HPAs and the ScaledObjects that scale a workload, and the ScaledObject with the name of ours, if there is KEDA.
func scalersOf(ctx context.Context, c client.Reader, w injector.Workload, withKEDA bool) ([]autoscalingv2.HorizontalPodAutoscaler,
	[]keda.ScaledObject, error,
) {
	scaled := client.MatchingFields{byTarget: target(w.Kind, w.Name)}
	var hpas autoscalingv2.HorizontalPodAutoscalerList
	if err := c.List(ctx, &hpas, client.InNamespace(w.Namespace), scaled); err != nil {
		return nil, nil, fmt.Errorf("listing the horizontalpodautoscalers of %s: %w", w.Ref(), err)
	}
	if !withKEDA {
		return hpas.Items, nil, nil
	}
	var scaledObjects keda.ScaledObjectList
	if err := c.List(ctx, &scaledObjects, client.InNamespace(w.Namespace), scaled); err != nil {
		return nil, nil, fmt.Errorf("listing the scaledobjects of %s: %w", w.Ref(), err)
	}
	ours := injector.ScaledObjectName(w.Ref())
	if slices.ContainsFunc(scaledObjects.Items, func(so keda.ScaledObject) bool { return so.Name == ours }) {
		return hpas.Items, scaledObjects.Items, nil
	}
	var named keda.ScaledObject
	err := c.Get(ctx, types.NamespacedName{Namespace: w.Namespace, Name: ours}, &named)
	if err == nil {
		return hpas.Items, append(scaledObjects.Items, named), nil
	}
	if client.IgnoreNotFound(err) != nil {
		return nil, nil, fmt.Errorf("getting scaledobject %s: %w", ours, err)
	}
	return hpas.Items, scaledObjects.Items, nil
}

// way lets each interceptor connect to the pods.
func (b *serviceObserver) way(ctx context.Context, front types.NamespacedName, interceptors []string) (*injector.Way, error) {
	allow, err := b.interceptorsText(ctx)
	if err != nil {
		return nil, err
	}
	answers := make([][]injector.PortReach, len(interceptors))
	var asks errgroup.Group
	asks.SetLimit(maxDials)
	for n, address := range interceptors {
		asks.Go(func() (err error) {
			answers[n], err = b.Reach(ctx, address, front)
			return err
		})
	}
	if err := asks.Wait(); err != nil {
		log.FromContext(ctx).V(1).Info("Asking an interceptor about its way to the pods failed", "error", err.Error())
		return &injector.Way{Failed: status.Code(err).String()}, nil
	}
	found := slices.DeleteFunc(answers, func(a []injector.PortReach) bool { return a == nil })
	return &injector.Way{Found: found, Allow: allow}, nil
}

// interceptorsText says which pods a NetworkPolicy has to allow.
func (b *serviceObserver) interceptorsText(ctx context.Context) (string, error) {
	who := "all pods"
	own := &corev1.Service{}
	err := b.client.Get(ctx, types.NamespacedName{Namespace: b.Namespace, Name: b.InterceptorService}, own)
	if client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("getting the interceptors' service: %w", err)
	}
	if len(own.Spec.Selector) > 0 {
		who = "pods " + labels.SelectorFromSet(own.Spec.Selector).String()
	}
	return fmt.Sprintf("%s in namespace %s (namespaceSelector %s=%s)", who, b.Namespace, corev1.LabelMetadataName, b.Namespace), nil
}

// kept reports whether another Service routes to the workload.
func (b *serviceObserver) kept(ctx context.Context, service types.NamespacedName, w injector.Workload) (*bool, error) {
	all, err := slicesRoutedTo(ctx, b.client, service.Namespace, w.Ref().String())
	if err != nil {
		return nil, err
	}
	for i := range all {
		routes, ok := routesOf(&all[i])
		if !ok || routes.Service == service.Name || routes.Retiring {
			continue
		}
		owner, err := b.service(ctx, service.Namespace, routes.Service)
		if err != nil {
			return nil, err
		}
		if owner != nil && ownedBy(&all[i], owner.UID) {
			return new(true), nil
		}
	}
	return new(false), nil
}

// slicesRoutedTo returns the route slices that name a workload.
func slicesRoutedTo(ctx context.Context, c client.Reader, namespace, workload string) ([]discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	if err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{byWorkload: workload}); err != nil {
		return nil, fmt.Errorf("listing route slices to %s in namespace %s: %w", workload, namespace, err)
	}
	return list.Items, nil
}

// visits finds out when an app was last used, and what belongs to the same release.
func (b *serviceObserver) visits(ctx context.Context, service *corev1.Service, w injector.Workload) (*injector.Visits, error) {
	v := &injector.Visits{}
	var err error
	if release := injector.ReleaseOf(service); release != "" {
		if v.Release, err = servicesBy(ctx, b.client, service.Namespace, byRelease, release); err != nil {
			return nil, err
		}
	}
	use, err := b.Counts.Use(ctx, service.Namespace, w.Ref())
	if err != nil {
		log.FromContext(ctx).Info("Not warning about an app without visitors: the interceptors cannot be asked", "error", err.Error())
		return v, nil
	}
	v.Use = &use
	return v, nil
}

// forget is for a deleted Service.
func (b *serviceObserver) forget(service types.NamespacedName) {
	b.natives.forget(service)
	for _, front := range []types.NamespacedName{service, {Namespace: service.Namespace, Name: injector.AliasServiceName(service.Name)}} {
		b.ports.free(front, b.Now())
		if b.mirror != nil {
			b.mirror.forget(front)
		}
		if b.wakeRoles != nil {
			b.wakeRoles.forget(front)
		}
	}
}
