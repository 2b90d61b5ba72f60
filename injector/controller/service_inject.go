package controller

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// inject takes the Service over, made before broken: the real pods are listed, the interceptors listen, traffic is sent
// to them as well, and only then is the sentinel asked for, which takes it from the pods.
func (r *ServiceReconciler) inject(ctx context.Context, service *corev1.Service, own owned, v verdict) (ctrl.Result, error) {
	if err := r.applyDirect(ctx, service, own.direct); err != nil {
		return ctrl.Result{}, err
	}
	routes, err := r.routes(ctx, service, v)
	if err != nil {
		return ctrl.Result{}, err
	}
	published, err := r.published(ctx, routes, own)
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.applySlices(ctx, service, routes, published, own); err != nil {
		return ctrl.Result{}, err
	}
	if complete := len(published.Ports) == len(routes.Ports) && len(published.Interceptors) > 0; !complete {
		log.FromContext(ctx).V(1).Info("Waiting for an interceptor to listen", "routes", routes.Ports)
		return ctrl.Result{RequeueAfter: retry}, nil
	}
	if injector.Intercepted(service) {
		return ctrl.Result{}, nil
	}
	if listed, err := r.podsListed(ctx, service, v.workload); err != nil || !listed {
		return ctrl.Result{RequeueAfter: retry}, err
	}
	return r.askForSentinel(ctx, service, routes, v)
}

func (r *ServiceReconciler) applyDirect(ctx context.Context, service *corev1.Service, have *corev1.Service) error {
	want := injector.DirectService(service)
	if have == nil {
		if err := r.client.Create(ctx, want); err != nil {
			return fmt.Errorf("creating direct service %s: %w", client.ObjectKeyFromObject(want), err)
		}
		return nil
	}
	if equality.Semantic.DeepEqual(have.Spec.Selector, want.Spec.Selector) && equality.Semantic.DeepEqual(have.Spec.Ports, want.Spec.Ports) &&
		equality.Semantic.DeepEqual(have.Labels, want.Labels) {
		return nil
	}
	updated := have.DeepCopy()
	updated.Labels, updated.Spec.Selector, updated.Spec.Ports = want.Labels, want.Spec.Selector, want.Spec.Ports
	if err := r.client.Update(ctx, updated); err != nil {
		return fmt.Errorf("updating direct service %s: %w", client.ObjectKeyFromObject(want), err)
	}
	return nil
}

// routes returns what the interceptors are to listen for, each port under the number that it has already.
func (r *ServiceReconciler) routes(ctx context.Context, service *corev1.Service, v verdict) (api.Routes, error) {
	r.portsOnce.Lock()
	defer r.portsOnce.Unlock()
	if err := r.learnPorts(ctx); err != nil {
		return api.Routes{}, err
	}
	names := make([]string, len(service.Spec.Ports))
	for i, p := range service.Spec.Ports {
		names[i] = p.Name
	}
	r.ports.Keep(service.Namespace, service.Name, r.Now(), names...)
	return injector.NewRoutes(service, v.settings, v.workload.Ref(), func(port string) (int32, error) {
		return r.ports.Get(injector.Route{Namespace: service.Namespace, Service: service.Name, Port: port}, r.Now())
	})
}

// learnPorts fills ports from all route slices, once, the older first: where two claim a port, the younger gets another.
// The caller holds portsOnce.
func (r *ServiceReconciler) learnPorts(ctx context.Context) error {
	if r.ports != nil {
		return nil
	}
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.MatchingLabels{api.RoleLabel: api.RoleRoute}); err != nil {
		return fmt.Errorf("listing all route slices: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b discoveryv1.EndpointSlice) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	ports := injector.NewPorts(r.PortLow, r.PortHigh)
	for _, s := range list.Items {
		routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
		if err != nil {
			continue
		}
		for _, p := range routes.Ports {
			if !ports.Learn(injector.Route{Namespace: s.Namespace, Service: routes.Service, Port: p.Name}, p.Listen) {
				log.FromContext(ctx).Info("An interceptor port cannot be kept; the route gets another", "service", s.Namespace+"/"+routes.Service, "port", p.Listen)
			}
		}
	}
	r.ports = ports
	return nil
}

func (r *ServiceReconciler) freePorts(service client.ObjectKey) {
	r.portsOnce.Lock()
	defer r.portsOnce.Unlock()
	if r.ports != nil {
		r.ports.Keep(service.Namespace, service.Name, r.Now())
	}
}

// published finds out which interceptors answer on the routes' ports. Those that are published already are not dialed
// again: that they are ready is for the interceptors' own readiness probe to say.
func (r *ServiceReconciler) published(ctx context.Context, routes api.Routes, own owned) (injector.Published, error) {
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(r.Namespace), client.MatchingLabels{
		api.RoleLabel: api.RoleInterceptor, discoveryv1.LabelServiceName: r.InterceptorService,
	}); err != nil {
		return injector.Published{}, fmt.Errorf("listing interceptors: %w", err)
	}
	interceptors := injector.Interceptors(list.Items)
	known := map[string]bool{}
	var before []api.Port
	for _, s := range own.slices {
		for _, p := range s.Ports {
			before = append(before, api.Port{Name: *p.Name, Listen: *p.Port})
			for _, e := range s.Endpoints {
				known[net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port)))] = true
			}
		}
	}
	var wait sync.WaitGroup
	var mu sync.Mutex // protects known while the dials run
	for _, i := range interceptors {
		for _, p := range routes.Ports {
			address := net.JoinHostPort(i.Address, strconv.Itoa(int(p.Listen)))
			if known[address] {
				continue
			}
			wait.Go(func() {
				if r.Dial(ctx, address) == nil {
					mu.Lock()
					defer mu.Unlock()
					known[address] = true
				}
			})
		}
	}
	wait.Wait()
	return injector.Publish(routes, interceptors, before, func(i injector.Interceptor, p api.Port) bool {
		return known[net.JoinHostPort(i.Address, strconv.Itoa(int(p.Listen)))]
	}), nil
}

func (r *ServiceReconciler) applySlices(ctx context.Context, service *corev1.Service, routes api.Routes, published injector.Published, own owned) error {
	wanted, err := injector.RouteSlices(service, routes, published)
	if err != nil {
		return err
	}
	for _, want := range wanted {
		i := slices.IndexFunc(own.slices, func(s discoveryv1.EndpointSlice) bool { return s.Name == want.Name })
		if i < 0 {
			if err := r.client.Create(ctx, &want); err != nil {
				return fmt.Errorf("creating route slice %s: %w", client.ObjectKeyFromObject(&want), err)
			}
			continue
		}
		have := &own.slices[i]
		if equality.Semantic.DeepEqual(have.Annotations, want.Annotations) && equality.Semantic.DeepEqual(have.Labels, want.Labels) &&
			equality.Semantic.DeepEqual(have.Ports, want.Ports) && equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) {
			continue
		}
		want.ResourceVersion = have.ResourceVersion
		if err := r.client.Update(ctx, &want); err != nil {
			return fmt.Errorf("updating route slice %s: %w", client.ObjectKeyFromObject(&want), err)
		}
	}
	return nil
}

// podsListed says whether Kubernetes has listed the workload's pods behind the direct Service, so that the interceptors
// know them before they get the first request.
func (r *ServiceReconciler) podsListed(ctx context.Context, service *corev1.Service, w injector.Workload) (bool, error) {
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingLabels{
		api.RoleLabel: api.RoleDirect, injector.ServiceLabel: service.Name,
	}); err != nil {
		return false, fmt.Errorf("listing direct slices of %s: %w", client.ObjectKeyFromObject(service), err)
	}
	return len(list.Items) > 0 && (w.ReadyReplicas == 0 || injector.HasReadyEndpoint(list.Items)), nil
}

// askForSentinel annotates the Service; admission adds the sentinel in that same write, so that the selector stays its
// author's. Without admission nothing has happened but the annotation, and the Service works as before.
func (r *ServiceReconciler) askForSentinel(ctx context.Context, service *corev1.Service, routes api.Routes, v verdict) (ctrl.Result, error) {
	if err := r.annotate(ctx, service, fmt.Sprintf("%q", injector.RouteReady)); err != nil {
		return ctrl.Result{}, err
	}
	if !injector.Intercepted(service) {
		r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonSkipped,
			"scale-to-zero's admission webhook did not answer, so traffic still goes to the pods and the app is kept awake; trying again", service)
		return ctrl.Result{RequeueAfter: 5 * retry}, nil
	}
	r.stories.forget(client.ObjectKeyFromObject(service))
	r.stories.tell(ctx, corev1.EventTypeNormal, reasonInjected, fmt.Sprintf(
		"Requests to Service %s (%s) now go through scale-to-zero; %s sleeps after %s without one and wakes on the next. Undo: kubectl label service -n %s %s %s-",
		service.Name, portsText(routes), v.workload.Ref(), injector.Short(v.settings.Cooldown), service.Namespace, service.Name, injector.OptInLabel), service, v.object)
	return ctrl.Result{}, nil
}

// annotate writes RouteAnnotation ("null" takes it off), through admission, and reads back what came of it.
func (r *ServiceReconciler) annotate(ctx context.Context, service *corev1.Service, value string) error {
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, injector.RouteAnnotation, value))
	if err := r.client.Patch(ctx, service, patch, client.FieldOwner(injector.ManagedBy)); err != nil {
		return fmt.Errorf("annotating service %s: %w", client.ObjectKeyFromObject(service), err)
	}
	return nil
}

func portsText(routes api.Routes) string {
	s := make([]string, len(routes.Ports))
	for i, p := range routes.Ports {
		s[i] = strconv.Itoa(int(p.Port))
	}
	if len(s) == 1 {
		return "port " + s[0]
	}
	return "ports " + strings.Join(s, ", ")
}
