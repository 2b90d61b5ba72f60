// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/go-logr/logr"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// watch keeps sink up to date until ctx is done. One watch in all namespaces reports all relevant slices. It selects them by a label
// that Kubernetes copies from Services to their slices.
//
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=list;watch
func (c *Cluster) watch(ctx context.Context, sink interceptor.Sink) {
	slices := c.client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = api.RoleLabel
			return slices.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			o.LabelSelector = api.RoleLabel
			return slices.Watch(ctx, o)
		},
	}
	reflector := cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(lw, c.client), &discoveryv1.EndpointSlice{},
		newStore(sink, c.options), cache.ReflectorOptions{Name: "endpointslices"})
	reflector.RunWithContext(ctx)
}

// store is where the reflector puts slices. It keeps a digest of each slice, and passes on what a change means for the Service. Only
// the reflector's goroutine calls it.
type store struct {
	sink    interceptor.Sink
	options Options
	log     logr.Logger

	slices map[name]slice
	// byService has the names of a Service's slices, by role.
	byService map[roleName]map[name]struct{}
	// byDirect has the opted-in Services that use a direct Service.
	byDirect map[name]map[name]struct{}
	// told is what the sink knows: the direct Service of each opted-in Service.
	told   map[name]name
	synced bool

	omitted omitted
	quota   quota
	// interceptors are the addresses of all interceptors, which no app has.
	interceptors map[string]bool
}

type roleName struct {
	role    string
	service name
}

func newStore(sink interceptor.Sink, o Options) *store {
	return &store{
		sink: sink, options: o, log: o.Log,
		slices:    map[name]slice{},
		byService: map[roleName]map[name]struct{}{},
		byDirect:  map[name]map[name]struct{}{},
		told:      map[name]name{},
		omitted:   omitted{log: o.Log, why: map[name]string{}},
		quota:     newQuota(o.MaxRoutesPerNamespace), interceptors: map[string]bool{o.PodIP: true},
	}
}

// Add implements cache.ReflectorStore.
func (s *store) Add(obj any) error { return s.Update(obj) }

// Update implements cache.ReflectorStore.
func (s *store) Update(obj any) error {
	if es, ok := obj.(*discoveryv1.EndpointSlice); ok {
		for service := range s.set(es) {
			s.tell(service)
		}
	}
	return nil
}

// Delete implements cache.ReflectorStore.
func (s *store) Delete(obj any) error {
	if es, ok := obj.(*discoveryv1.EndpointSlice); ok {
		n := name{es.Namespace, es.Name}
		s.omitted.gone(n)
		for service := range s.remove(n) {
			s.tell(service)
		}
	}
	return nil
}

// Replace implements cache.ReflectorStore. It is called with all slices, at the start and after a watch that could not be resumed.
func (s *store) Replace(list []any, _ string) error {
	changed := map[roleName]struct{}{}
	present := map[name]struct{}{}
	for _, obj := range list {
		if es, ok := obj.(*discoveryv1.EndpointSlice); ok {
			present[name{es.Namespace, es.Name}] = struct{}{}
			maps.Copy(changed, s.set(es))
		}
	}
	for n := range s.slices {
		if _, ok := present[n]; !ok {
			s.omitted.gone(n)
			maps.Copy(changed, s.remove(n))
		}
	}
	s.tellAll(changed)
	if !s.synced {
		s.synced = true
		s.sink.Synced()
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *store) Resync() error { return nil }

// Transformer implements cache.TransformingStore. It drops what we do not use before it is buffered.
func (s *store) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if es, ok := obj.(*discoveryv1.EndpointSlice); ok {
			es.ManagedFields = nil
		}
		return obj, nil
	}
}

// set stores es and returns the Services that it concerns.
func (s *store) set(es *discoveryv1.EndpointSlice) map[roleName]struct{} {
	n := name{es.Namespace, es.Name}
	concerned := s.remove(n)
	d := digest(es, s.options)
	key := roleName{d.role, d.service}
	if d.foreign != "" {
		s.omitted.note(n, d.foreign)
		return concerned
	}
	s.slices[n] = d
	if s.byService[key] == nil {
		s.byService[key] = map[name]struct{}{}
	}
	s.byService[key][n] = struct{}{}
	concerned[key] = struct{}{}
	return concerned
}

// remove forgets the slice named n and returns the Services that it concerned.
func (s *store) remove(n name) map[roleName]struct{} {
	concerned := map[roleName]struct{}{}
	old, ok := s.slices[n]
	if !ok {
		return concerned
	}
	delete(s.slices, n)
	key := roleName{old.role, old.service}
	delete(s.byService[key], n)
	if len(s.byService[key]) == 0 {
		delete(s.byService, key)
	}
	concerned[key] = struct{}{}
	return concerned
}

// tellAll reports all changes to the sink, for the older Services first: if two Services claim a port, the older one gets it.
func (s *store) tellAll(changed map[roleName]struct{}) {
	keys := slices.Collect(maps.Keys(changed))
	oldest := func(k roleName) (t int64) {
		for i, sl := range s.of(k) {
			if made := sl.created.UnixNano(); i == 0 || made < t {
				t = made
			}
		}
		return t
	}
	slices.SortFunc(keys, func(a, b roleName) int {
		return cmp.Or(cmp.Compare(oldest(a), oldest(b)), cmp.Compare(a.service.namespace, b.service.namespace),
			cmp.Compare(a.service.name, b.service.name))
	})
	// Report routes before direct Services, because a direct Service concerns only known routes.
	for _, role := range [...]string{api.RoleRoute, api.RoleDirect, api.RoleInterceptor} {
		for _, k := range keys {
			if k.role == role {
				s.tell(k)
			}
		}
	}
}

func (s *store) of(k roleName) []slice {
	var all []slice
	for n := range s.byService[k] {
		all = append(all, s.slices[n])
	}
	return all
}

// tell passes on the present state of one Service.
func (s *store) tell(k roleName) {
	switch k.role {
	case api.RoleRoute:
		s.tellRoute(k.service)
	case api.RoleDirect:
		for service := range s.byDirect[k.service] {
			s.tellRoute(service)
		}
	case api.RoleInterceptor:
		s.tellPeers()
	}
}

// tellRoute passes on the present state of an opted-in Service.
func (s *store) tellRoute(service name) {
	own := s.of(roleName{api.RoleRoute, service})
	slices.SortFunc(own, func(a, b slice) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.uid, b.uid))
	})
	if len(own) == 0 {
		s.forget(service)
		return
	}
	routes, valid := s.valid(own)
	if len(valid) == 0 {
		return // the earlier state holds until the injector has written the slice again
	}
	before := s.quota.taken[service]
	if !s.quota.take(service, len(routes.Ports)) {
		s.omitted.note(name{service.namespace, valid[0].meta.Name}, fmt.Sprintf("the namespace has more than %d routes", s.quota.limit))
		return
	}
	for _, sl := range valid {
		s.omitted.gone(name{service.namespace, sl.meta.Name})
	}
	direct := name{service.namespace, routes.Direct}
	if old, ok := s.told[service]; ok && old != direct {
		delete(s.byDirect[old], service)
	}
	s.told[service] = direct
	if s.byDirect[direct] == nil {
		s.byDirect[direct] = map[name]struct{}{}
	}
	s.byDirect[direct][service] = struct{}{}
	s.sink.SetService(s.combined(routes, valid, direct))
	if len(routes.Ports) < before {
		for _, other := range s.quota.waiting(service.namespace) {
			s.tellRoute(other)
		}
	}
}

// valid returns the slices of a Service whose routes count, and the routes of the oldest of them.
func (s *store) valid(own []slice) (api.Routes, []slice) {
	var routes api.Routes
	valid := own[:0:0]
	for _, sl := range own {
		n := name{sl.service.namespace, sl.meta.Name}
		r, err := api.DecodeRoutes(sl.routes)
		if err == nil {
			err = errors.Join(sl.meta.CheckRoutes(r), s.reserved(r))
		}
		if err != nil {
			s.omitted.note(n, err.Error())
			continue
		}
		if len(valid) == 0 {
			routes = r
		}
		valid = append(valid, sl)
	}
	return routes, valid
}

// reserved returns an error if a route claims a port that the interceptor itself listens on.
func (s *store) reserved(r api.Routes) error {
	for _, p := range r.Ports {
		if slices.Contains(s.options.Reserved, p.Listen) {
			return fmt.Errorf("a route claims port %d, which is the interceptor's own", p.Listen)
		}
	}
	return nil
}

func (s *store) combined(routes api.Routes, own []slice, direct name) route.Service {
	progress, err := api.DecodeProgress(own[0].progress)
	if err != nil {
		s.log.Error(err, "Not reporting how far a start has come", "namespace", direct.namespace, "service", routes.Service)
	}
	all := combine(routes, own, s.apps(s.of(roleName{api.RoleDirect, direct})))
	all.Progress = progress
	learned, err := api.DecodeLearned(own[0].learned)
	if err != nil {
		s.log.Error(err, "Not waking what was learned", "namespace", direct.namespace, "service", routes.Service)
	}
	all.Calls = learned.Together()
	return all
}

func (s *store) forget(service name) {
	direct, ok := s.told[service]
	if !ok {
		delete(s.quota.over, service)
		return
	}
	delete(s.told, service)
	delete(s.byDirect[direct], service)
	if len(s.byDirect[direct]) == 0 {
		delete(s.byDirect, direct)
	}
	s.sink.RemoveService(service.namespace, service.name)
	for _, other := range s.quota.free(service) {
		s.tellRoute(other)
	}
}

// tellPeers passes on the other interceptors. An interceptor with addresses of both IP families counts once.
func (s *store) tellPeers() {
	byName := map[string]peer.Peer{}
	interceptors := map[string]bool{s.options.PodIP: true}
	for key, names := range s.byService {
		if key.role != api.RoleInterceptor || key.service.namespace != s.options.Namespace ||
			s.options.Service != "" && key.service.name != s.options.Service {
			continue
		}
		for n := range names {
			for _, p := range s.slices[n].peers {
				interceptors[p.Addr] = true
				if old, ok := byName[p.Name]; !ok || p.Addr < old.Addr {
					byName[p.Name] = p
				}
			}
		}
	}
	s.sink.SetPeers(slices.SortedFunc(maps.Values(byName), func(a, b peer.Peer) int { return cmp.Compare(a.Name, b.Name) }))
	s.setInterceptors(interceptors)
}
