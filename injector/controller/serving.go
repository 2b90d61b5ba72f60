// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"net"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// serving finds out at which of the addresses an interceptor serves the routes of a Front.
//
// A port that accepts connections proves nothing about whose it is: a forged route slice may have claimed it before ours. So each
// interceptor is asked which of its ports belong to the Service, over the connection on which both sides prove who they are. Only then
// does a TCP connect say something: that packets get through to the route's port, and not only to the gRPC port, which a NetworkPolicy
// in our own namespace may decide differently.
//
// An interceptor that does not know the question is of an older version. It is not believed, so that nobody gains by answering so.
// During an upgrade this costs nothing: published interceptors are not asked again unless they restart, and serve until they go, and
// their successors know the question.
func (b *serviceObserver) serving(ctx context.Context, front types.NamespacedName, routes api.Routes,
	addresses []string,
) *injector.Serving {
	out := &injector.Serving{At: make(map[string]bool, len(addresses))}
	at := map[string]map[string]bool{} // the asked addresses, by IP address
	for _, address := range addresses {
		ip, _, _ := net.SplitHostPort(address) // the planner has joined it
		if at[ip] == nil {
			at[ip] = map[string]bool{}
		}
		at[ip][address] = true
	}
	var mu sync.Mutex // protects out and dials
	var dials []string
	var asks errgroup.Group
	asks.SetLimit(maxDials)
	for ip, asked := range at {
		asks.Go(func() error {
			owned, err := b.Owns(ctx, ip, front, routes)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				log.FromContext(ctx).V(1).Info("Asking an interceptor about its routes failed", "error", err.Error())
				out.Failed, out.Old = status.Code(err).String(), status.Code(err) == codes.Unimplemented
				return nil
			}
			if owned == nil {
				return nil // it is busy
			}
			for _, p := range routes.Ports {
				switch a := net.JoinHostPort(ip, strconv.Itoa(int(p.Listen))); {
				case !asked[a]:
				case owned[p.Name]:
					dials = append(dials, a)
				default:
					out.At[a] = false
				}
			}
			return nil
		})
	}
	_ = asks.Wait() // no function returns an error
	var connects errgroup.Group
	connects.SetLimit(maxDials)
	for _, address := range dials {
		connects.Go(func() error {
			accepted := b.Dial(ctx, address) == nil
			mu.Lock()
			defer mu.Unlock()
			out.At[address] = accepted
			return nil
		})
	}
	_ = connects.Wait()
	return out
}
