// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"cmp"
	"math"
	"sync"
	"time"

	"github.com/go-logr/logr"

	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// ServerOptions configure a Server.
type ServerOptions struct {
	// Targets returns all targets.
	Targets func() []*route.Target
	// KEDAStream says whether KEDA's stream for a workload is open here.
	KEDAStream func(route.Key) bool
	// News returns what the routes have learned since a version, and the version that it is. Default nothing.
	News func(since uint64) (route.News, uint64)
	// Interval is how often changes are gathered and sent. Default 200 ms.
	Interval time.Duration
	Log      logr.Logger
}

// Server streams this interceptor's counts.
type Server struct {
	pb.UnimplementedPeerServer

	options ServerOptions
	done    chan struct{}
	close   sync.Once

	// mu protects subscribers, each of which is poked to look at once.
	mu          sync.Mutex
	subscribers map[chan struct{}]struct{}
}

// NewServer returns a Server.
func NewServer(o ServerOptions) *Server {
	o.Interval = cmp.Or(o.Interval, 200*time.Millisecond)
	if o.News == nil {
		o.News = func(uint64) (route.News, uint64) { return route.News{}, 0 }
	}
	return &Server{options: o, done: make(chan struct{}), subscribers: map[chan struct{}]struct{}{}}
}

// Close ends all streams.
func (s *Server) Close() { s.close.Do(func() { close(s.done) }) }

// Poke sends what has changed at once.
func (s *Server) Poke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for poke := range s.subscribers {
		select {
		case poke <- struct{}{}:
		default: // it is about to look
		}
	}
}

// Watch implements the peer protocol.
func (s *Server) Watch(r *pb.WatchRequest, out pb.Peer_WatchServer) error {
	s.options.Log.V(1).Info("peer subscribed", "peer", r.GetSubscriber())
	poke := make(chan struct{}, 1)
	s.mu.Lock()
	s.subscribers[poke] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.subscribers, poke)
		s.mu.Unlock()
	}()
	tick := time.NewTicker(s.options.Interval)
	defer tick.Stop()
	seen := differ{sent: map[route.Key]sent{}}
	var told uint64
	for first := true; ; first = false {
		var counts []*pb.WorkloadCount
		if !r.GetOnlyLearned() {
			counts = seen.changes(s.options.Targets(), s.options.KEDAStream, time.Now())
		}
		news, version := s.options.News(told)
		if first || len(counts) > 0 || version != told {
			if err := out.Send(message(counts, news)); err != nil {
				return err
			}
			told = version
		}
		select {
		case <-poke:
		case <-tick.C:
		case <-s.done:
			return nil
		case <-out.Context().Done():
			return nil
		}
	}
}

// differ finds what a subscriber has not been told yet.
type differ struct{ sent map[route.Key]sent }

// sent is what was told last of a workload.
type sent struct {
	pending int64
	keda    bool
	last    time.Time // of the last request
	at      time.Time
}

// changes returns what has changed. That only the last request is newer is told no more than once a second.
func (d *differ) changes(targets []*route.Target, keda func(route.Key) bool, now time.Time) []*pb.WorkloadCount {
	var out []*pb.WorkloadCount
	present := make(map[route.Key]struct{}, len(targets))
	for _, t := range targets {
		present[t.Key] = struct{}{}
		idle := t.Idle()
		next := sent{pending: t.Pending(), keda: keda(t.Key), at: now}
		if idle != math.MaxInt64 {
			next.last = now.Add(-idle)
		}
		old, known := d.sent[t.Key]
		newer := next.last.Sub(old.last) > time.Millisecond && now.Sub(old.at) >= time.Second
		if known && old.pending == next.pending && old.keda == next.keda && !newer {
			continue
		}
		d.sent[t.Key] = next
		out = append(out, &pb.WorkloadCount{
			Namespace: t.Key.Namespace, Workload: t.Key.Workload, Pending: next.pending,
			IdleMilliseconds: idle.Milliseconds(), KedaStream: next.keda,
		})
	}
	for key := range d.sent {
		if _, ok := present[key]; !ok {
			delete(d.sent, key)
			out = append(out, &pb.WorkloadCount{Namespace: key.Namespace, Workload: key.Workload, IdleMilliseconds: forgotten})
		}
	}
	return out
}

// forgotten is an idle time longer than any cool-down.
const forgotten = math.MaxInt64 / int64(time.Millisecond)
