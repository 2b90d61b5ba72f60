// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
)

// relearn is the pause before the interceptors are followed again.
const relearn = 5 * time.Second

// newsKept is how long news is kept for the plan of its workload.
const newsKept = 15 * time.Minute

// Learned is what the interceptors have learned. They cannot keep it, because they write nothing.
type Learned interface {
	// Follow calls note with each lesson. It returns when ctx is done, or when the interceptors can no longer be followed.
	Follow(ctx context.Context, note func(Lesson)) error
}

// Lesson is something that the interceptors have learned.
type Lesson struct {
	// ServerFirst are interceptor ports whose servers have turned out to speak first, and HTTP those whose apps have answered requests.
	ServerFirst, HTTP []int32
	// Calls are of workloads that have just woken.
	Calls []Call
	// Early is when workloads, named as by key, began to take requests before Kubernetes called a pod ready.
	Early map[types.NamespacedName]time.Time
}

// Call is a call of one workload, the caller, to another one of its namespace. Both are named as by api.Workload.String.
type Call struct {
	Namespace, Caller, Callee string
	injector.Call
}

// learned keeps what the interceptors have learned. It gets into the route slices, and so survives a restart of all interceptors. It
// runs where the controllers run.
type learned struct {
	from Learned
	// changed has the route slices of ports that are news, and called the workloads with new calls.
	changed chan event.TypedGenericEvent[*discoveryv1.EndpointSlice]
	called  chan event.TypedGenericEvent[types.NamespacedName]
	// find returns the route slices with one of these ports.
	find func(ctx context.Context, ports map[int32]bool) ([]discoveryv1.EndpointSlice, error)

	mu     sync.Mutex // protects all below
	spoken injector.Spoken
	calls  map[types.NamespacedName]map[string]injector.Call // by caller and callee
	early  map[types.NamespacedName]time.Time
}

func newLearned(from Learned, c client.Reader) *learned {
	return &learned{
		from: from, find: slicesWith(c), changed: make(chan event.TypedGenericEvent[*discoveryv1.EndpointSlice]),
		called: make(chan event.TypedGenericEvent[types.NamespacedName]),
		spoken: injector.Spoken{ServerFirst: map[int32]bool{}, HTTP: map[int32]bool{}},
		calls:  map[types.NamespacedName]map[string]injector.Call{}, early: map[types.NamespacedName]time.Time{},
	}
}

// Start implements manager.Runnable.
func (l *learned) Start(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := l.from.Follow(ctx, func(news Lesson) { l.note(ctx, news) }); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).V(1).Info("The interceptors cannot be followed", "error", err.Error())
		}
	}, relearn)
	return nil
}

// note remembers a lesson, and has what it concerns reconciled.
func (l *learned) note(ctx context.Context, news Lesson) {
	l.notePorts(ctx, news)
	l.noteEarly(news.Early, time.Now())
	for _, caller := range l.noteCalls(news.Calls, time.Now()) {
		select {
		case l.called <- event.TypedGenericEvent[types.NamespacedName]{Object: caller}:
		case <-ctx.Done():
		}
	}
}

// noteEarly remembers when workloads began to take requests. They are reconciled when Kubernetes calls a pod ready.
func (l *learned) noteEarly(early map[types.NamespacedName]time.Time, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for workload, at := range early { // older news comes from another interceptor
		if at.After(l.early[workload]) {
			l.early[workload] = at
		}
	}
	if len(early) > 0 {
		maps.DeleteFunc(l.early, func(_ types.NamespacedName, at time.Time) bool { return now.Sub(at) > newsKept })
	}
}

// noteCalls remembers calls, and returns their callers.
func (l *learned) noteCalls(calls []Call, now time.Time) []types.NamespacedName {
	l.mu.Lock()
	defer l.mu.Unlock()
	callers := map[types.NamespacedName]bool{}
	for _, c := range calls {
		caller := types.NamespacedName{Namespace: c.Namespace, Name: c.Caller}
		if l.calls[caller] == nil {
			l.calls[caller] = map[string]injector.Call{}
		}
		if c.At.After(l.calls[caller][c.Callee].At) {
			l.calls[caller][c.Callee], callers[caller] = c.Call, true
		}
	}
	if len(callers) > 0 {
		maps.DeleteFunc(l.calls, func(_ types.NamespacedName, of map[string]injector.Call) bool {
			maps.DeleteFunc(of, func(_ string, c injector.Call) bool { return now.Sub(c.At) > newsKept })
			return len(of) == 0
		})
	}
	return slices.Collect(maps.Keys(callers))
}

// of returns the latest calls of a workload, by their callees, and when it last began to take requests early.
func (l *learned) of(workload types.NamespacedName) (map[string]injector.Call, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.calls[workload]), l.early[workload]
}

// notePorts remembers ports, and has their Services reconciled.
func (l *learned) notePorts(ctx context.Context, news Lesson) {
	fresh := map[int32]bool{}
	note := func(ports []int32, known map[int32]bool) {
		for _, p := range ports {
			if !known[p] {
				known[p], fresh[p] = true, true
			}
		}
	}
	l.mu.Lock()
	note(news.ServerFirst, l.spoken.ServerFirst)
	note(news.HTTP, l.spoken.HTTP)
	l.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	found, err := l.find(ctx, fresh)
	if err != nil {
		log.FromContext(ctx).Error(err, "Finding the Services of ports whose protocol has become known")
	}
	for i := range found {
		select {
		case l.changed <- event.TypedGenericEvent[*discoveryv1.EndpointSlice]{Object: &found[i]}:
		case <-ctx.Done():
		}
	}
}

// known returns what is known about ports.
func (l *learned) known() injector.Spoken {
	l.mu.Lock()
	defer l.mu.Unlock()
	return injector.Spoken{ServerFirst: maps.Clone(l.spoken.ServerFirst), HTTP: maps.Clone(l.spoken.HTTP)}
}

// peerClient follows an interceptor as a peer would.
type peerClient struct {
	dialer  interceptorDialer
	address string
}

// Follow implements Learned.
func (c peerClient) Follow(ctx context.Context, note func(Lesson)) error {
	conn, err := c.dialer.connect(ctx, "dns:///"+c.address,
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}))
	if err != nil {
		return fmt.Errorf("connecting to the interceptors: %w", err)
	}
	defer func() { _ = conn.Close() }()
	stream, err := pb.NewPeerClient(conn).Watch(ctx, &pb.WatchRequest{Subscriber: "controller", OnlyLearned: true})
	if err != nil {
		return fmt.Errorf("following an interceptor: %w", err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("following an interceptor: %w", err)
		}
		news := Lesson{
			ServerFirst: m.GetServerFirstPorts(), HTTP: m.GetHttpPorts(), Early: map[types.NamespacedName]time.Time{},
		}
		for _, c := range m.GetCalls() {
			news.Calls = append(news.Calls, Call{
				Namespace: c.GetNamespace(), Caller: c.GetCaller(), Callee: c.GetCallee(),
				Call: injector.Call{At: time.Now().Add(-time.Duration(c.GetAgeMilliseconds()) * time.Millisecond), Asleep: c.GetAsleep()},
			})
		}
		for _, e := range m.GetEarly() {
			workload := types.NamespacedName{Namespace: e.GetNamespace(), Name: e.GetWorkload()}
			news.Early[workload] = time.Now().Add(-time.Duration(e.GetAgeMilliseconds()) * time.Millisecond)
		}
		note(news)
	}
}

// slicesWith returns a function that finds the route slices, in all namespaces, that have one of the ports.
func slicesWith(c client.Reader) func(context.Context, map[int32]bool) ([]discoveryv1.EndpointSlice, error) {
	return func(ctx context.Context, ports map[int32]bool) ([]discoveryv1.EndpointSlice, error) {
		var out []discoveryv1.EndpointSlice
		for _, port := range slices.Sorted(maps.Keys(ports)) {
			var list discoveryv1.EndpointSliceList
			if err := c.List(ctx, &list, client.MatchingFields{byListen: strconv.Itoa(int(port))}); err != nil {
				return out, fmt.Errorf("listing the route slices with port %d: %w", port, err)
			}
			out = append(out, list.Items...)
		}
		return out, nil
	}
}
