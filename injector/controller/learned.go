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
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
)

// relearn is the pause before the interceptors are followed again.
const relearn = 5 * time.Second

// Learned is what the interceptors have learned. They cannot keep it, because they write nothing.
type Learned interface {
	// Follow calls serverFirst with interceptor ports whose servers have turned out to speak first. It returns when ctx is done, or when
	// the interceptors can no longer be followed.
	Follow(ctx context.Context, serverFirst func(ports []int32)) error
}

// learned keeps what the interceptors have learned. It gets into the route slices, and so survives a restart of all interceptors. It
// runs where the controllers run.
type learned struct {
	from    Learned
	changed chan event.TypedGenericEvent[*discoveryv1.EndpointSlice]
	// find returns the route slices with one of these ports.
	find func(ctx context.Context, ports map[int32]bool) ([]discoveryv1.EndpointSlice, error)

	mu          sync.Mutex // protects serverFirst
	serverFirst map[int32]bool
}

func newLearned(from Learned, c client.Reader) *learned {
	return &learned{
		from: from, find: slicesWith(c), changed: make(chan event.TypedGenericEvent[*discoveryv1.EndpointSlice]),
		serverFirst: map[int32]bool{},
	}
}

// Start implements manager.Runnable.
func (l *learned) Start(ctx context.Context) error {
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if err := l.from.Follow(ctx, func(ports []int32) { l.note(ctx, ports) }); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).V(1).Info("The interceptors cannot be followed", "error", err.Error())
		}
	}, relearn)
	return nil
}

// note remembers ports, and makes their Services be reconciled.
func (l *learned) note(ctx context.Context, ports []int32) {
	fresh := map[int32]bool{}
	l.mu.Lock()
	for _, p := range ports {
		if !l.serverFirst[p] {
			l.serverFirst[p], fresh[p] = true, true
		}
	}
	l.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	found, err := l.find(ctx, fresh)
	if err != nil {
		log.FromContext(ctx).Error(err, "Finding the Services of ports on which a server speaks first")
	}
	for i := range found {
		select {
		case l.changed <- event.TypedGenericEvent[*discoveryv1.EndpointSlice]{Object: &found[i]}:
		case <-ctx.Done():
		}
	}
}

// known returns the ports whose servers have turned out to speak first.
func (l *learned) known() map[int32]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.serverFirst)
}

// peerClient follows an interceptor as a peer would.
type peerClient struct{ address string }

// Follow implements Learned.
func (c peerClient) Follow(ctx context.Context, serverFirst func(ports []int32)) error {
	conn, err := grpc.NewClient("dns:///"+c.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
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
		serverFirst(m.GetServerFirstPorts())
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
