// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"cmp"
	"context"
	"math"
	"sync"
	"time"

	"github.com/go-logr/logr"

	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// ServerOptions configure a Server.
type ServerOptions struct {
	// Targets returns all targets. Target returns one, or nil if it does not exist.
	Targets func() []*route.Target
	Target  func(route.Key) *route.Target
	// Hub says which targets have changed, and for which a KEDA stream is open here.
	Hub *counts.Hub
	// Memory is what the routes have learned. Default none.
	Memory *route.Memory
	// Interval is how often changes are collected and sent. Default 200 ms.
	Interval time.Duration
	Log      logr.Logger
}

// Server streams this interceptor's counts.
type Server struct {
	pb.UnimplementedPeerServer

	options ServerOptions
	done    chan struct{}
	close   sync.Once
}

// NewServer returns a Server.
func NewServer(o ServerOptions) *Server {
	o.Interval = cmp.Or(o.Interval, 200*time.Millisecond)
	if o.Memory == nil {
		o.Memory = route.NewMemory(o.Hub)
	}
	return &Server{options: o, done: make(chan struct{})}
}

// Close ends all streams.
func (s *Server) Close() { s.close.Do(func() { close(s.done) }) }

// Watch implements the peer protocol.
func (s *Server) Watch(r *pb.WatchRequest, out pb.Peer_WatchServer) error {
	s.options.Log.V(1).Info("A peer has subscribed", "peer", r.GetSubscriber())
	follower := s.options.Hub.FollowAll()
	defer follower.Close()
	// While nothing changes, there is no reason to wake up.
	timer := time.NewTimer(s.options.Interval)
	defer timer.Stop()
	seen := newDiffer(&s.options, follower)
	var told uint64
	for first := true; ; first = false {
		var changed []*pb.WorkloadCount
		if !r.GetOnlyLearned() {
			changed = seen.changes(time.Now())
		}
		news, version := s.options.Memory.News(told)
		if first || len(changed) > 0 || version != told {
			if err := out.Send(message(changed, news)); err != nil {
				return err
			}
			told = version
		}
		if !s.await(out.Context(), follower, timer, !r.GetOnlyLearned() && len(seen.due) > 0) {
			return nil
		}
	}
}

// await waits until it is time to send changes to a subscriber: at once if that matters, and otherwise after changes have been
// collected for the interval. due is set if there is something to check again. await returns false when the stream ends.
func (s *Server) await(ctx context.Context, f *counts.Follower, timer *time.Timer, due bool) bool {
	timer.Stop()
	some := f.Some()
	if due {
		timer.Reset(s.options.Interval)
		some = nil
	}
	for {
		select {
		case <-some:
			timer.Reset(s.options.Interval)
			some = nil
		case <-f.Now():
			return true
		case <-timer.C:
			return true
		case <-s.done:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// differ finds what a subscriber does not know yet.
type differ struct {
	options  *ServerOptions
	follower *counts.Follower
	sent     map[route.Key]sent
	// due are the workloads to check. A workload stays due while requests for it are pending, its last request has not been sent yet, or
	// the rate of its requests changes because time passes.
	due map[route.Key]struct{}
}

// newDiffer returns a differ whose subscriber knows nothing.
func newDiffer(o *ServerOptions, f *counts.Follower) *differ {
	d := &differ{options: o, follower: f, sent: map[route.Key]sent{}, due: map[route.Key]struct{}{}}
	for _, t := range o.Targets() {
		d.due[t.Key] = struct{}{}
	}
	return d
}

// sent is what was last sent about a workload.
type sent struct {
	pending int64
	keda    bool
	rate    float64
	last    time.Time // of the last request
	at      time.Time
}

// changes returns what has changed. If only the time of the last request or the rate of requests has changed, that is sent at most once
// a second.
func (d *differ) changes(now time.Time) []*pb.WorkloadCount {
	for _, key := range d.follower.Take() {
		d.due[key] = struct{}{}
	}
	var out []*pb.WorkloadCount
	for key := range d.due {
		count, due := d.change(key, now)
		if count != nil {
			out = append(out, count)
		}
		if !due {
			delete(d.due, key)
		}
	}
	return out
}

// change returns what to send about a workload, or nil, and whether to check the workload again.
func (d *differ) change(key route.Key, now time.Time) (_ *pb.WorkloadCount, due bool) {
	old, known := d.sent[key]
	t := d.options.Target(key)
	if t == nil {
		if !known {
			return nil, false
		}
		delete(d.sent, key)
		return &pb.WorkloadCount{Namespace: key.Namespace, Workload: key.Workload, IdleMilliseconds: forgotten}, false
	}
	pending, idle := t.Look()
	rate, moves := t.Rate()
	next := sent{pending: pending, keda: d.options.Hub.Followed(key), rate: rate, at: now}
	if idle != math.MaxInt64 {
		next.last = now.Add(-idle)
	}
	newer := next.last.Sub(old.last) > time.Millisecond || next.rate != old.rate
	if known && old.pending == next.pending && old.keda == next.keda && (!newer || now.Sub(old.at) < time.Second) {
		return nil, newer || moves || pending > 0
	}
	d.sent[key] = next
	return &pb.WorkloadCount{
		Namespace: key.Namespace, Workload: key.Workload, Pending: pending, IdleMilliseconds: idle.Milliseconds(), KedaStream: next.keda,
		RequestRate: next.rate,
	}, moves || pending > 0
}

// forgotten is an idle time longer than any cool-down.
const forgotten = math.MaxInt64 / int64(time.Millisecond)
