// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// never is the idle time of a workload without any request.
const never = time.Duration(math.MaxInt64)

// Peer is another interceptor.
type Peer struct {
	Name string // its pod's name
	Addr string // its IP
	// Unready is set if it takes no new requests: it has not taken any yet, or finishes what it has.
	Unready bool
}

// key returns what identifies a peer, in any condition.
func (p Peer) key() Peer { return Peer{Name: p.Name, Addr: p.Addr} }

// known is a peer that is set.
type known struct {
	*follower

	cancel  context.CancelFunc
	unready bool
	seen    time.Time // when it was first set, or stopped being ready
}

// finishing is how long an interceptor that is not ready any more may have requests. It is more than the drain timeout of the chart.
// One on a node that is gone may be listed for ever.
const finishing = 2 * time.Minute

// missed is after what time the log says that a peer is not heard.
const missed = 30 * time.Second

// PoolOptions configure a Pool.
type PoolOptions struct {
	// Name is this interceptor's pod name.
	Name string
	// Dial returns the address (ip:port) to dial for a peer.
	Dial func(Peer) string
	// Credentials are for the connections to the peers. Default plain text.
	Credentials credentials.TransportCredentials
	// Hub notifies the followers of a workload when a peer has sent something about it.
	Hub *counts.Hub
	// Memory learns what the peers' routes have learned. Default none.
	Memory *route.Memory
	// Led returns the workloads that wake together with one: their followers look too when it has requests at a peer. Default none.
	Led func(route.Key) []route.Key
	// MinRetry and MaxRetry bound the pause before a lost peer is tried again. Default 100 ms and 5 s.
	MinRetry, MaxRetry time.Duration
	Log                logr.Logger
}

func (o *PoolOptions) setDefaults() {
	o.MinRetry = cmp.Or(o.MinRetry, 100*time.Millisecond)
	o.MaxRetry = cmp.Or(o.MaxRetry, 5*time.Second)
	if o.Credentials == nil {
		o.Credentials = insecure.NewCredentials()
	}
	if o.Memory == nil {
		o.Memory = route.NewMemory(o.Hub)
	}
	if o.Led == nil {
		o.Led = func(route.Key) []route.Key { return nil }
	}
}

// count is what a peer says about a workload.
type count struct {
	pending int64
	last    time.Time // of its last request; zero means none
	keda    bool
	rate    float64 // of its requests, each second
}

// follower follows a peer. A peer that goes and comes back gets a new follower, so that the end of the first takes nothing away from
// the second.
type follower struct{ Peer }

// Pool subscribes to the peers. Each peer has one goroutine, which ends when the peer is no longer set, or with Close.
type Pool struct {
	options PoolOptions
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	// mu protects all below. No request takes it.
	mu     sync.RWMutex
	closed bool
	peers  map[Peer]*known // by key
	counts map[*follower]map[route.Key]count
	lost   time.Time // when a peer's counts were last lost
}

// NewPool returns a Pool without peers.
func NewPool(o PoolOptions) *Pool {
	o.setDefaults()
	p := &Pool{options: o, peers: map[Peer]*known{}, counts: map[*follower]map[route.Key]count{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close ends all subscriptions.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.running.Wait()
}

// Count returns the number of peers.
func (p *Pool) Count() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.peers)
}

// SetPeers sets the other interceptors.
func (p *Pool) SetPeers(peers []Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	wanted := map[Peer]bool{}
	for _, peer := range peers {
		key := peer.key()
		wanted[key] = true
		if old := p.peers[key]; old != nil {
			if peer.Unready && !old.unready {
				old.seen = time.Now()
			}
			old.unready = peer.Unready
			continue
		}
		ctx, cancel := context.WithCancel(p.ctx)
		of := &follower{key}
		p.peers[key] = &known{of, cancel, peer.Unready, time.Now()}
		p.running.Go(func() { p.follow(ctx, of) })
	}
	for peer, known := range p.peers {
		if !wanted[peer] {
			known.cancel()
			delete(p.peers, peer)
			p.lost = time.Now() // whether or not it has ever been heard
		}
	}
}

// Total implements scaler.Peers.
func (p *Pool) Total(key route.Key) (pending int64, idle time.Duration) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	idle = never
	for _, counts := range p.counts {
		c, ok := counts[key]
		if !ok {
			continue
		}
		pending += c.pending
		if !c.last.IsZero() {
			idle = min(idle, time.Since(c.last))
		}
	}
	return pending, idle
}

// Rate implements scaler.Peers.
func (p *Pool) Rate(key route.Key) float64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	rate := 0.0
	for _, counts := range p.counts {
		rate += counts[key].rate
	}
	return rate
}

// KEDAStream implements scaler.Peers.
func (p *Pool) KEDAStream(key route.Key) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, counts := range p.counts {
		if counts[key].keda {
			return true
		}
	}
	return false
}

// SinceLost implements scaler.Peers. It is 0 while there is a peer that is not heard: requests may come in there. So it is for each new
// peer, for the moment until it is heard. In an upgrade from or to a version that does not speak the same (plain text, or TLS at another
// port), it is for as long as there are interceptors of both, and nothing in use is put to sleep meanwhile.
func (p *Pool) SinceLost() time.Duration {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, peer := range p.peers {
		if _, heard := p.counts[peer.follower]; !heard && (!peer.unready || time.Since(peer.seen) < finishing) {
			return 0
		}
	}
	if p.lost.IsZero() {
		return never
	}
	return time.Since(p.lost)
}

// follow subscribes to a peer, again and again until ctx is done.
func (p *Pool) follow(ctx context.Context, peer *follower) {
	conn, err := grpc.NewClient("passthrough:///"+p.options.Dial(peer.Peer),
		grpc.WithTransportCredentials(p.options.Credentials),
		// A peer that vanishes silently is noticed after 13 s. gRPC does not allow less than 10 s of silence.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: p.options.MinRetry, Multiplier: 1.6, Jitter: 0.2, MaxDelay: p.options.MaxRetry},
			MinConnectTimeout: 2 * time.Second,
		}))
	if err != nil {
		p.options.Log.Error(err, "Dialing a peer failed", "peer", peer.Name)
		return
	}
	defer func() { _ = conn.Close() }()
	wait, since, said := p.options.MinRetry, time.Now(), false
	for {
		heard, err := p.subscribe(ctx, conn, peer)
		p.drop(peer, heard)
		if ctx.Err() != nil {
			return
		}
		p.options.Log.V(1).Info("A peer's stream has ended", "peer", peer.Name, "error", fmt.Sprint(err))
		if heard {
			wait, since, said = p.options.MinRetry, time.Now(), false
		}
		if !said && time.Since(since) > missed {
			said = true
			p.options.Log.Info("A peer is not heard: while it is ready, apps with pods stay up", "peer", peer.Name, "error", fmt.Sprint(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait)): //nolint:gosec // spreads retries, and is no secret
		}
		wait = min(2*wait, p.options.MaxRetry)
	}
}

// subscribe applies the messages of peer until the stream ends. heard is true if one has arrived.
func (p *Pool) subscribe(ctx context.Context, conn *grpc.ClientConn, peer *follower) (heard bool, _ error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewPeerClient(conn).Watch(ctx, &pb.WatchRequest{Subscriber: p.options.Name})
	if err != nil {
		return false, fmt.Errorf("subscribing: %w", err)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return heard, fmt.Errorf("receiving: %w", err)
		}
		if !heard {
			p.options.Log.V(1).Info("Following a peer", "peer", peer.Name)
		}
		heard = true
		p.apply(peer, message)
	}
}

func (p *Pool) apply(peer *follower, message *pb.Counts) {
	now := time.Now()
	p.mu.Lock()
	of := p.counts[peer]
	if of == nil {
		of = map[route.Key]count{}
		p.counts[peer] = of
	}
	for _, w := range message.GetWorkloads() {
		key := route.Key{Namespace: w.GetNamespace(), Workload: w.GetWorkload()}
		c := count{pending: w.GetPending(), keda: w.GetKedaStream()}
		if rate := w.GetRequestRate(); rate > 0 && !math.IsInf(rate, 0) {
			c.rate = rate
		}
		if ms := w.GetIdleMilliseconds(); ms >= 0 && ms < forgotten {
			c.last = now.Add(-time.Duration(ms) * time.Millisecond)
		}
		if c == (count{}) {
			delete(of, key)
			continue
		}
		of[key] = c
	}
	p.mu.Unlock()
	p.options.Memory.Learn(newsOf(message))
	for _, w := range message.GetWorkloads() {
		key := route.Key{Namespace: w.GetNamespace(), Workload: w.GetWorkload()}
		p.options.Hub.Poke(key)
		if w.GetPending() > 0 {
			for _, led := range p.options.Led(key) {
				p.options.Hub.Poke(led)
			}
		}
	}
}

// drop forgets what peer said. The peer may have had requests until just now; lost accounts for that.
func (p *Pool) drop(peer *follower, heard bool) {
	p.mu.Lock()
	keys := p.counts[peer]
	delete(p.counts, peer)
	if heard {
		p.lost = time.Now()
	}
	p.mu.Unlock()
	for key := range keys {
		p.options.Hub.Poke(key)
	}
}
