// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/scale"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// CacheOptions keep the manager's cache small. Of the cluster's EndpointSlices it has only those that concern us, of Roles and
// RoleBindings only ours, and of managed fields only who owns a replica count.
func CacheOptions() (cache.Options, error) {
	ours, err := labels.NewRequirement(api.RoleLabel, selection.Exists, nil)
	if err != nil {
		return cache.Options{}, fmt.Errorf("selecting endpoint slices: %w", err)
	}
	by := map[client.Object]cache.ByObject{&discoveryv1.EndpointSlice{}: {Label: labels.NewSelector().Add(*ours)}}
	made, err := labels.NewRequirement(injector.ManagedByLabel, selection.Equals, []string{injector.ManagedBy})
	if err != nil {
		return cache.Options{}, fmt.Errorf("selecting roles: %w", err)
	}
	for _, o := range []client.Object{&rbacv1.Role{}, &rbacv1.RoleBinding{}} {
		by[o] = cache.ByObject{Label: labels.NewSelector().Add(*made)}
	}
	extensionCache(by)
	return cache.Options{
		ByObject: by,
		DefaultTransform: func(o any) (any, error) {
			if a, err := meta.Accessor(o); err == nil {
				a.SetManagedFields(injector.KeepReplicaOwners(a.GetManagedFields()))
			}
			return o, nil
		},
	}, nil
}

// plane is the control plane that Add assembles.
type plane struct {
	Options

	mgr       ctrl.Manager
	discovery *discovery.DiscoveryClient
	events    *recorder
	writes    writer
	requests  *requests
	workloads *workloadClient
	natives   *natives
	learned   *learned
	keda      kedaState
	access    *kedaAccess // nil in plain text
	gateway   *gatewayRoutes
	ports     *portBook
	restarts  *restarts
	mirror    *mirrorReconciler
	wakeRoles *wakeRoleReconciler // nil if the interceptors get their rights from somebody else
	planAll   func()              // has every workload planned again

	serviceController, workloadController controller.Controller
}

// Add adds both controllers to the manager.
func Add(ctx context.Context, mgr ctrl.Manager, o Options) error {
	o.setDefaults()
	if o.Namespace == "" || o.InterceptorService == "" || o.ScalerAddress == "" {
		return errors.New("adding controllers: Namespace, InterceptorService and ScalerAddress are required")
	}
	if err := addIndexes(ctx, mgr.GetFieldIndexer(), indexes()...); err != nil {
		return err
	}
	p := &plane{Options: o, mgr: mgr, events: newRecorder(mgr.GetClient(), o.Now)}
	p.writes = writer{mgr.GetClient(), mgr.GetAPIReader(), p.events}
	for _, add := range []func(context.Context) error{
		p.connect, p.addMirror, p.addWakeRoles, p.addServices, p.addWorkloads, p.addKEDA, p.addGateway,
	} {
		if err := add(ctx); err != nil {
			return err
		}
	}
	if p.access != nil {
		if err := mgr.Add(p.access); err != nil {
			return fmt.Errorf("adding KEDA's access: %w", err)
		}
	}
	return errors.Join(mgr.Add(p.natives), mgr.Add(p.learned), mgr.Add(manager.RunnableFunc(p.close)))
}

// close closes the connections when the manager ends.
func (p *plane) close(ctx context.Context) error {
	<-ctx.Done()
	if counts, ok := p.Counts.(io.Closer); ok {
		return counts.Close()
	}
	return nil
}

// connect makes the clients.
func (p *plane) connect(ctx context.Context) error {
	var err error
	p.discovery, err = discovery.NewDiscoveryClientForConfigAndClient(p.mgr.GetConfig(), p.mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("making a discovery client: %w", err)
	}
	scales, err := scale.NewForConfig(rest.CopyConfig(p.mgr.GetConfig()), p.mgr.GetRESTMapper(), dynamic.LegacyAPIPathResolverFunc,
		scale.NewDiscoveryScaleKindResolver(p.discovery))
	if err != nil {
		return fmt.Errorf("making a client of the scale subresource: %w", err)
	}
	watcher, err := client.NewWithWatch(p.mgr.GetConfig(), client.Options{
		HTTPClient: p.mgr.GetHTTPClient(), Scheme: p.mgr.GetScheme(), Mapper: p.mgr.GetRESTMapper(),
	})
	if err != nil {
		return fmt.Errorf("making a client that watches: %w", err)
	}
	p.workloads = &workloadClient{
		client: p.mgr.GetClient(), live: p.mgr.GetAPIReader(), mapper: p.mgr.GetRESTMapper(), scales: scales, watchKind: p.watchKind,
	}
	p.natives = newNatives(ctx, watcher)
	p.connectKEDA()
	p.learned = newLearned(p.Learned, p.mgr.GetClient())
	p.ports = &portBook{client: p.mgr.GetClient(), low: p.PortLow, high: p.PortHigh, perNamespace: p.MaxRoutesPerNamespace}
	p.restarts = newRestarts(p.Options)
	p.requests = &requests{client: p.mgr.GetClient(), namespace: p.Namespace, deployment: p.Deployment, workloads: p.workloads}
	return nil
}

func (p *plane) addServices(context.Context) error {
	p.gateway = &gatewayRoutes{cache: p.mgr.GetCache()}
	r := &serviceReconciler{
		client: p.writes, events: p.events, now: p.Now, retries: newRetries(), memories: map[types.NamespacedName]injector.Memory{},
		observer: &serviceObserver{
			Options: p.Options, client: p.mgr.GetClient(), workloads: p.workloads, keda: &p.keda, routes: p.gateway,
			natives: p.natives, learned: p.learned, extensions: extensions{p.mgr.GetCache()},
			ports: p.ports, restarts: p.restarts, mirror: p.mirror, wakeRoles: p.wakeRoles,
		},
	}
	ofWorkload := handler.EnqueueRequestsFromMapFunc(p.requests.servicesOfWorkload)
	annotated := predicate.Or(predicate.LabelChangedPredicate{}, predicate.AnnotationChangedPredicate{})
	var err error
	p.serviceController, err = watchExtensions(ctrl.NewControllerManagedBy(p.mgr)).
		Named("service").
		For(&corev1.Service{}).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(p.requests.servicesOfSlice),
			builder.WithPredicates(p.restarts.seeing())).
		Watches(&networkingv1.Ingress{}, handler.EnqueueRequestsFromMapFunc(p.requests.servicesOfIngress)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(p.requests.servicesBeside), builder.WithPredicates(reselected())).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(p.requests.servicesOfNamespace), builder.WithPredicates(annotated)).
		Watches(&appsv1.Deployment{}, ofWorkload, builder.WithPredicates(relabelled())).
		Watches(&appsv1.StatefulSet{}, ofWorkload, builder.WithPredicates(relabelled())).
		Watches(&appsv1.DaemonSet{}, ofWorkload, builder.WithPredicates(relabelled())).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(p.requests.servicesOfHPA),
			builder.WithPredicates(retargeted())).
		WatchesRawSource(source.Channel(p.learned.changed, handler.TypedEnqueueRequestsFromMapFunc(
			func(ctx context.Context, s *discoveryv1.EndpointSlice) []reconcile.Request {
				return p.requests.servicesOfSlice(ctx, s)
			}))).
		WatchesRawSource(source.Channel(p.natives.changed, handler.TypedEnqueueRequestsFromMapFunc(
			func(_ context.Context, s *corev1.Service) []reconcile.Request { return named(s.Namespace, s.Name) }))).
		// A reconcile spends most of its time waiting for connections whose packets a filter drops.
		WithOptions(controller.Options{MaxConcurrentReconciles: 16}).
		Build(r)
	if err != nil {
		return fmt.Errorf("adding service controller: %w", err)
	}
	if err := errors.Join(p.watchPolicies(), p.watchRights()); err != nil || p.access == nil {
		return err
	}
	return p.serviceController.Watch(source.Channel(p.access.services,
		handler.TypedEnqueueRequestsFromMapFunc(p.requests.servicesOfScaledObject)))
}

func (p *plane) addWorkloads(context.Context) error {
	r := &workloadReconciler{
		client: p.writes, events: p.events, now: p.Now, retries: newRetries(), again: newBell(),
		memories: map[types.NamespacedName]injector.WorkloadMemory{},
		observer: &workloadObserver{
			Options: p.Options, client: p.mgr.GetClient(), live: p.mgr.GetAPIReader(), workloads: p.workloads,
			keda: &p.keda, learned: p.learned,
		},
	}
	changed := make(chan event.TypedGenericEvent[types.NamespacedName])
	byName := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, workload types.NamespacedName) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: workload}}
	})
	var err error
	p.workloadController, err = ctrl.NewControllerManagedBy(p.mgr).
		Named("workload").
		Watches(&appsv1.Deployment{}, handler.EnqueueRequestsFromMapFunc(itself)).
		Watches(&appsv1.StatefulSet{}, handler.EnqueueRequestsFromMapFunc(itself)).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(p.requests.workloadsOfSlice)).
		Watches(&networkingv1.Ingress{}, handler.EnqueueRequestsFromMapFunc(p.requests.workloadsOfIngress)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(p.requests.workloadsOfService)).
		Watches(&autoscalingv2.HorizontalPodAutoscaler{}, handler.EnqueueRequestsFromMapFunc(workloadOfHPA),
			builder.WithPredicates(retargeted())).
		WatchesRawSource(source.Channel(p.learned.called, byName)).
		WatchesRawSource(source.Channel(changed, byName)).
		WatchesRawSource(r.again.source()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Build(r)
	if err != nil {
		return fmt.Errorf("adding workload controller: %w", err)
	}
	p.planAll = r.planAll
	if p.access != nil {
		p.access.planAll = r.planAll
	}
	if p.StartupCPU {
		return p.mgr.Add(&recovery{live: p.mgr.GetAPIReader(), recovered: r.recovered, changed: changed, retry: 5 * time.Second})
	}
	return nil
}

// watchKind makes both controllers notice changes of a kind that is not built in. The Service controller notices only changed
// annotations: it does not need the changes that come with scaling.
func (p *plane) watchKind(kind schema.GroupVersionKind) error {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(kind)
	return errors.Join(
		p.serviceController.Watch(source.Kind[client.Object](p.mgr.GetCache(), object,
			handler.EnqueueRequestsFromMapFunc(p.requests.servicesOfWorkload), predicate.AnnotationChangedPredicate{})),
		p.workloadController.Watch(source.Kind[client.Object](p.mgr.GetCache(), object, handler.EnqueueRequestsFromMapFunc(itself))),
	)
}

// addKEDA notices when KEDA is installed or removed. While the API server serves ScaledObjects, KEDA scales, and both controllers
// watch the ScaledObjects. Otherwise we scale.
func (p *plane) addKEDA(ctx context.Context) error {
	k := &optionalKinds{
		log: p.mgr.GetLogger().WithName("keda"), discovery: p.discovery, live: p.mgr.GetAPIReader(),
		versions: []schema.GroupVersion{keda.GroupVersion()}, kinds: []string{"ScaledObject"},
	}
	k.come = func(ctx context.Context, _ schema.GroupVersionKind) error {
		if err := addIndexes(ctx, p.mgr.GetFieldIndexer(), index{&keda.ScaledObject{}, byTarget, scaledObjectTarget}); err != nil {
			return err
		}
		byName := handler.TypedEnqueueRequestsFromMapFunc(p.requests.servicesOfScaledObject)
		changed := predicate.TypedGenerationChangedPredicate[*keda.ScaledObject]{}
		if err := errors.Join(
			p.serviceController.Watch(source.Kind(p.mgr.GetCache(), &keda.ScaledObject{}, byName, changed)),
			p.workloadController.Watch(source.Kind(p.mgr.GetCache(), &keda.ScaledObject{}, ofTarget())),
		); err != nil {
			return errors.Join(err, k.gone(ctx, schema.GroupVersionKind{})) // the next poll tries again
		}
		if p.access == nil {
			p.keda.install(&injector.Scaler{Address: p.ScalerAddress})
			p.planAll()
			k.log.Info("KEDA is installed: it scales")
			return nil
		}
		p.keda.install(nil)
		k.log.Info("KEDA is installed")
		select {
		case p.access.arrived <- struct{}{}:
		default: // it is about to look
		}
		return nil
	}
	k.gone = func(ctx context.Context, _ schema.GroupVersionKind) error {
		p.keda.remove()
		p.planAll()
		k.log.Info("KEDA is not installed any more: scaling without it")
		return p.mgr.GetCache().RemoveInformer(ctx, &keda.ScaledObject{})
	}
	return errors.Join(k.poll(ctx), p.mgr.Add(k))
}

// connectKEDA prepares what gives KEDA its credentials, unless everything is in plain text.
func (p *plane) connectKEDA() {
	if p.KEDA == nil {
		return
	}
	p.access = &kedaAccess{
		KEDAAccess: *p.KEDA, address: p.ScalerAddress, state: &p.keda, client: p.mgr.GetClient(), live: p.mgr.GetAPIReader(),
		log: p.mgr.GetLogger().WithName("keda"), events: p.events, now: p.Now, arrived: make(chan struct{}, 1),
		deployment: client.ObjectKey{Namespace: p.Namespace, Name: p.Deployment},
		services:   make(chan event.TypedGenericEvent[*keda.ScaledObject]),
	}
	p.access.setDefaults()
}

// ofTarget asks for a reconcile of a ScaledObject's workload.
func ofTarget() handler.TypedEventHandler[*keda.ScaledObject, reconcile.Request] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, so *keda.ScaledObject) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: key(so.Namespace, targetOf(so))}}
	})
}

// addGateway notices which route kinds of the Gateway API exist.
func (p *plane) addGateway(ctx context.Context) error {
	k := &optionalKinds{
		log: p.mgr.GetLogger().WithName("gateway"), discovery: p.discovery, live: p.mgr.GetAPIReader(),
		versions: gatewayVersions(), kinds: injector.GatewayRouteKinds(),
	}
	k.come = func(ctx context.Context, kind schema.GroupVersionKind) error {
		if err := addIndexes(ctx, p.mgr.GetFieldIndexer(), index{newUnstructured(kind), byBackend, routeBackends}); err != nil {
			return err
		}
		err := p.serviceController.Watch(source.Kind[client.Object](p.mgr.GetCache(), newUnstructured(kind),
			handler.EnqueueRequestsFromMapFunc(p.requests.servicesOfRoute), predicate.GenerationChangedPredicate{}))
		if err != nil {
			return errors.Join(err, k.gone(ctx, kind)) // the next poll tries again
		}
		return nil
	}
	k.gone = func(ctx context.Context, kind schema.GroupVersionKind) error {
		return p.mgr.GetCache().RemoveInformer(ctx, newUnstructured(kind))
	}
	p.gateway.kinds = k
	return errors.Join(k.poll(ctx), p.mgr.Add(k))
}
