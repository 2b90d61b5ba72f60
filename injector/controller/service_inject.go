// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// inject takes an entrance over, made before broken: the real pods are listed, the interceptors listen, traffic is sent to
// them as well, and only then is admission asked to turn it away from the pods. done says that it is taken over.
func (r *ServiceReconciler) inject(ctx context.Context, service *corev1.Service, e *entrance, direct *corev1.Service, ingresses backing, v verdict) (result ctrl.Result, done bool, err error) {
	if err := r.applyCompanions(ctx, service, e, direct, v.settings); err != nil {
		return ctrl.Result{}, false, err
	}
	routes, err := r.routes(ctx, service, *e, v)
	if err != nil {
		return ctrl.Result{}, false, err
	}
	routes.Reach = injector.ReachOf(service, ingresses.all)
	r.learned.apply(&routes, &e.routes)
	ready, err := r.interceptors(ctx)
	if err != nil {
		return ctrl.Result{}, false, err
	}
	turned := r.taken(service, *e, ingresses)
	taken := len(e.slices) > 0 && turned
	if taken && len(injector.OfFamilies(ready, e.front.Spec.IPFamilies)) == 0 {
		return ctrl.Result{}, true, r.failOpen(ctx, service, routes, *e, v) // watches tell of interceptors and pods that come
	}
	o, err := r.offer(ctx, service, e, routes, ready, turned, v)
	if err != nil {
		return ctrl.Result{}, false, err
	}
	wanted, err := injector.RouteSlices(e.front, service, routes, v.settings, o.Published)
	if err != nil {
		return ctrl.Result{}, false, err
	}
	if o.lacks != "" {
		return r.applyIncomplete(ctx, service, *e, wanted, taken, o)
	}
	if err := r.applySlices(ctx, wanted, *e); err != nil {
		return ctrl.Result{}, false, err
	}
	if o.blocked != "" {
		result, err = r.whenBlocked(ctx, service, e, wanted, o.blocked)
		return result, true, err
	}
	if taken && o.missing != "" {
		return r.warnOfFamily(ctx, service, o.missing), true, nil
	}
	again := ctrl.Result{RequeueAfter: o.again}
	if len(o.Interceptors) < len(injector.OfFamilies(ready, e.front.Spec.IPFamilies)) {
		again.RequeueAfter = patience // no watch tells when one that is ready answers at last
	}
	if taken {
		r.warnOfFront(ctx, service, *e, ingresses, routes, v)
		return again, true, r.warn(ctx, service, *e, ingresses, v)
	}
	result, done, err = r.askWhenListed(ctx, service, *e, ingresses, routes, v)
	return soonest(result, again), done, err
}

// applyIncomplete has interceptors listen that are not all that an entrance needs yet.
func (r *ServiceReconciler) applyIncomplete(ctx context.Context, service *corev1.Service, e entrance, wanted []discoveryv1.EndpointSlice, taken bool, o offer) (ctrl.Result, bool, error) {
	again := ctrl.Result{RequeueAfter: retry}
	if e.failsOpen() {
		return again, true, nil // until one listens, the pods are better than nobody
	}
	if err := r.applySlices(ctx, wanted, e); err != nil || taken {
		return again, false, err
	}
	return r.await(ctx, service, o.lacks, o.longest), false, nil
}

// taken says that no traffic of the entrance goes past the interceptors any more.
func (r *ServiceReconciler) taken(service *corev1.Service, e entrance, ingresses backing) bool {
	if e.alias {
		return ingresses.rewritten(service.Name)
	}
	return injector.Intercepted(service)
}

// applyCompanions makes the direct Service, and the alias Service if the entrance has one.
func (r *ServiceReconciler) applyCompanions(ctx context.Context, service *corev1.Service, e *entrance, direct *corev1.Service, s injector.Settings) error {
	if err := r.applyCompanion(ctx, injector.DirectService(service, s), direct); err != nil || !e.alias {
		return err
	}
	alias := injector.AliasService(service)
	if err := r.applyCompanion(ctx, alias, e.front); err != nil {
		return err
	}
	if e.front == nil {
		e.front = alias
	}
	return nil
}

// applyCompanion makes a Service of ours what it is to be. have is nil if there is none yet. Its IP families stay those
// that it was made with: they can only partly be changed, and the API server may add one to what is asked for.
func (r *ServiceReconciler) applyCompanion(ctx context.Context, want, have *corev1.Service) error {
	if have == nil {
		if err := r.client.Create(ctx, want); err != nil {
			return fmt.Errorf("creating service %s: %w", client.ObjectKeyFromObject(want), err)
		}
		return nil
	}
	updated := have.DeepCopy()
	updated.Labels, updated.Annotations, updated.Spec.Selector = want.Labels, want.Annotations, want.Spec.Selector
	updated.Spec.Ports, updated.Spec.PublishNotReadyAddresses = want.Spec.Ports, want.Spec.PublishNotReadyAddresses
	updated.Spec.SessionAffinity = cmp.Or(want.Spec.SessionAffinity, corev1.ServiceAffinityNone) // as the API server has it
	updated.Spec.SessionAffinityConfig = want.Spec.SessionAffinityConfig
	if equality.Semantic.DeepEqual(have, updated) {
		return nil
	}
	if err := r.client.Update(ctx, updated); err != nil {
		return fmt.Errorf("updating service %s: %w", client.ObjectKeyFromObject(want), err)
	}
	return nil
}

// routes returns what the interceptors are to listen for, each port under the number that it has already.
func (r *ServiceReconciler) routes(ctx context.Context, service *corev1.Service, e entrance, v verdict) (api.Routes, error) {
	r.portsOnce.Lock()
	defer r.portsOnce.Unlock()
	if err := r.learnPorts(ctx); err != nil {
		return api.Routes{}, err
	}
	names := make([]string, len(service.Spec.Ports))
	for i, p := range service.Spec.Ports {
		names[i] = p.Name
	}
	r.ports.Keep(service.Namespace, e.front.Name, r.Now(), names...)
	return injector.NewRoutes(service, v.settings, v.workload.Ref(), func(port string) (int32, error) {
		return r.ports.Get(injector.Route{Namespace: service.Namespace, Service: e.front.Name, Port: port}, r.Now())
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
			front := s.Labels[discoveryv1.LabelServiceName]
			if !ports.Learn(injector.Route{Namespace: s.Namespace, Service: front, Port: p.Name}, p.Listen) {
				log.FromContext(ctx).Info("An interceptor port cannot be kept; the route gets another", "service", s.Namespace+"/"+front, "port", p.Listen)
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

// interceptors returns those that are ready.
func (r *ServiceReconciler) interceptors(ctx context.Context) ([]injector.Interceptor, error) {
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(r.Namespace), client.MatchingLabels{
		api.RoleLabel: api.RoleInterceptor, discoveryv1.LabelServiceName: r.InterceptorService,
	}); err != nil {
		return nil, fmt.Errorf("listing interceptors: %w", err)
	}
	return injector.Interceptors(list.Items), nil
}

// maxDials is how many connections one reconcile opens at a time.
const maxDials = 16

// published finds out which interceptors answer on the routes' ports. Those that are published already are not dialed
// again: that they are ready is for the interceptors' own readiness probe to say.
func (r *ServiceReconciler) published(ctx context.Context, routes api.Routes, interceptors []injector.Interceptor, e entrance) injector.Published {
	known := map[string]bool{}
	var before []api.Port
	for _, s := range e.slices {
		for _, p := range s.Ports {
			before = append(before, api.Port{Name: *p.Name, Listen: *p.Port})
			for _, endpoint := range s.Endpoints {
				known[net.JoinHostPort(endpoint.Addresses[0], strconv.Itoa(int(*p.Port)))] = true
			}
		}
	}
	var dials errgroup.Group
	dials.SetLimit(maxDials)
	answered := make(chan string, len(interceptors)*len(routes.Ports))
	for _, i := range interceptors {
		for _, p := range routes.Ports {
			address := net.JoinHostPort(i.Address, strconv.Itoa(int(p.Listen)))
			if known[address] {
				continue
			}
			dials.Go(func() error {
				if r.Dial(ctx, address) == nil {
					answered <- address
				}
				return nil
			})
		}
	}
	_ = dials.Wait() // none fails
	close(answered)
	for address := range answered {
		known[address] = true
	}
	return injector.Publish(routes, interceptors, before, func(i injector.Interceptor, p api.Port) bool {
		return known[net.JoinHostPort(i.Address, strconv.Itoa(int(p.Listen)))]
	})
}

func (r *ServiceReconciler) applySlices(ctx context.Context, wanted []discoveryv1.EndpointSlice, e entrance) error {
	for _, want := range wanted {
		if e.unproven != "" {
			want.Annotations[injector.UnprovenAnnotation] = e.unproven
		}
		i := slices.IndexFunc(e.slices, func(s discoveryv1.EndpointSlice) bool { return s.Name == want.Name })
		if i < 0 {
			if err := r.client.Create(ctx, &want); err != nil {
				return fmt.Errorf("creating route slice %s: %w", client.ObjectKeyFromObject(&want), err)
			}
			continue
		}
		have := &e.slices[i]
		if progress, ok := have.Annotations[api.ProgressAnnotation]; ok { // which is the WorkloadReconciler's
			want.Annotations[api.ProgressAnnotation] = progress
		}
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

// askWhenListed asks once Kubernetes has listed the workload's pods.
func (r *ServiceReconciler) askWhenListed(ctx context.Context, service *corev1.Service, e entrance, ingresses backing, routes api.Routes, v verdict) (ctrl.Result, bool, error) {
	unlisted, err := r.podsListed(ctx, service, v.workload)
	if err != nil {
		return ctrl.Result{}, false, err
	}
	if unlisted != "" {
		return r.await(ctx, service, unlisted, patience), false, nil
	}
	return r.ask(ctx, service, e, ingresses, routes, v)
}

// ask annotates the Service, or its Ingresses; admission turns the traffic in that same write, so that what it changes
// stays its author's. Without admission nothing has happened but the annotation, and traffic goes as before.
func (r *ServiceReconciler) ask(ctx context.Context, service *corev1.Service, e entrance, ingresses backing, routes api.Routes, v verdict) (ctrl.Result, bool, error) {
	objects := []client.Object{service}
	note := fmt.Sprintf("Requests to Service %s (%s)", service.Name, portsText(routes))
	undo := injector.UndoOptIn("service", service)
	if e.alias {
		for _, i := range ingresses.optedIn {
			if err := r.lead(ctx, i, service.Name, e.front.Name); err != nil {
				return ctrl.Result{}, false, err
			}
			objects = append(objects, i)
		}
		note = fmt.Sprintf("Requests through %s to Service %s (%s)", ingressesText(ingresses.optedIn), service.Name, portsText(routes))
		undo = injector.UndoOptIn("ingress", ingresses.optedIn[0])
	} else {
		if err := r.annotate(ctx, service, injector.RouteAnnotation, injector.RouteReady); err != nil {
			return ctrl.Result{}, false, err
		}
		for _, i := range ingresses.optedIn { // it would stay opted in for these
			undo += " && " + injector.UndoOptIn("ingress", i)
		}
	}
	if !r.taken(service, e, ingresses) {
		r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonSkipped,
			"scale-to-zero's admission webhook did not answer, so traffic still goes to the pods and the app is kept awake; trying again", service)
		return ctrl.Result{RequeueAfter: 5 * retry}, false, nil
	}
	r.stories.forget(client.ObjectKeyFromObject(service))
	note += fmt.Sprintf(" now go through scale-to-zero; %s sleeps after %s without one and wakes on the next.", v.workload.Ref(), injector.Short(v.settings.Cooldown))
	if e.alias {
		note += " Clients that use the Service itself do not wake it."
	} else {
		note += fmt.Sprintf(" kubectl port-forward, logs and exec find no pods behind service/%s now: use %s.", service.Name, kubectlName(v.workload))
	}
	r.stories.tell(ctx, corev1.EventTypeNormal, reasonInjected, note+" Undo: "+undo, append(objects, v.object)...)
	r.warnOfFront(ctx, service, e, ingresses, routes, v)
	return ctrl.Result{}, true, r.warn(ctx, service, e, ingresses, v)
}

// lead has an Ingress reach a Service by its alias, or by itself again when alias is empty.
func (r *ServiceReconciler) lead(ctx context.Context, ingress *networkingv1.Ingress, service, alias string) error {
	aliases := injector.Aliases(ingress)
	if alias != "" {
		aliases[service] = alias
	} else if aliases[service] == "" {
		// The annotation was lost while admission was away, and with it the author's name for the backend.
		aliases[service] = injector.AliasServiceName(service)
		if err := r.annotate(ctx, ingress, injector.AliasesAnnotation, injector.EncodeAliases(aliases)); err != nil {
			return err
		}
	}
	if alias == "" {
		delete(aliases, service)
	}
	return r.annotate(ctx, ingress, injector.AliasesAnnotation, injector.EncodeAliases(aliases))
}

// annotate writes an annotation (or takes it off, when value is empty), through admission, and reads back what came of it.
func (r *ServiceReconciler) annotate(ctx context.Context, o client.Object, key, value string) error {
	text := "null"
	if value != "" {
		text = strconv.Quote(value)
	}
	version := ""
	if _, shared := o.(*networkingv1.Ingress); shared {
		// Reconciles of two of its backends may work on one Ingress: neither must write what it has not read.
		version = fmt.Sprintf(`"resourceVersion":%q,`, o.GetResourceVersion())
	}
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{%s"annotations":{%q:%s}}}`, version, key, text))
	if err := r.client.Patch(ctx, o, patch, client.FieldOwner(injector.ManagedBy)); err != nil {
		return fmt.Errorf("annotating %s: %w", client.ObjectKeyFromObject(o), err)
	}
	return nil
}

// kubectlName is how kubectl takes the workload as an argument.
func kubectlName(w injector.Workload) string {
	kind, name, _ := strings.Cut(w.Ref().String(), "/")
	return strings.ToLower(kind) + "/" + name
}

func ingressesText(ingresses []*networkingv1.Ingress) string {
	names := make([]string, len(ingresses))
	for i, ingress := range ingresses {
		names[i] = "Ingress " + ingress.Name
	}
	return strings.Join(names, ", ")
}

func portsText(routes api.Routes) string {
	return numbersText(routes, func(p api.Port) int32 { return p.Port })
}

func listensText(routes api.Routes) string {
	return numbersText(routes, func(p api.Port) int32 { return p.Listen })
}

func numbersText(routes api.Routes, number func(api.Port) int32) string {
	s := make([]string, len(routes.Ports))
	for i, p := range routes.Ports {
		s[i] = strconv.Itoa(int(number(p)))
	}
	if len(s) == 1 {
		return "port " + s[0]
	}
	return "ports " + strings.Join(s, ", ")
}
