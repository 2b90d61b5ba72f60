// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package ready

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// maxPods is how many pods of a workload are probed at a time.
const maxPods = 5

// Options configure a Prober.
type Options struct {
	// Unready returns what to probe of a target, and Vouch takes the result. route.Table has both.
	Unready func(*route.Target) route.Unready
	Vouch   func(*route.Target, string, route.Word)
	// Every is how often a pod is probed until it takes requests. Default 25 ms.
	Every time.Duration
	// Again is how often the pod is probed afterwards. Default 100 ms.
	Again time.Duration
	Log   logr.Logger
}

// Prober probes pods. It runs a goroutine for each workload whose pods are probed, and one for each of these pods. Close ends them.
type Prober struct {
	options Options
	client  *client
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex                      // protects all below
	asked  map[*route.Target]chan struct{} // has an element when there is something new
	closed bool
}

// New returns a Prober.
func New(o Options) *Prober {
	o.Every = cmp.Or(o.Every, 25*time.Millisecond)
	o.Again = cmp.Or(o.Again, 100*time.Millisecond)
	p := &Prober{options: o, client: newClient(), asked: map[*route.Target]chan struct{}{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close ends all probes and waits for that. Pods that already take requests continue to do so.
func (p *Prober) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.running.Wait()
}

// Wake starts to probe the pods of t, for which a request is held.
func (p *Prober) Wake(t *route.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if news := p.asked[t]; news != nil {
		signal(news)
		return
	}
	if p.closed {
		return
	}
	news := make(chan struct{}, 1)
	p.asked[t] = news
	p.running.Go(func() { p.run(t, news) })
}

// PodsChanged says that the pods of t may have changed.
func (p *Prober) PodsChanged(t *route.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if news := p.asked[t]; news != nil {
		signal(news)
	}
}

func signal(news chan struct{}) {
	select {
	case news <- struct{}{}:
	default:
	}
}

// stop reports whether the pods of t need not be probed any more.
func (p *Prober) stop(t *route.Target) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.Awaits() { // read it under mu: Wake, which is called for every held request, needs mu too
		return false
	}
	delete(p.asked, t)
	return true
}

// run probes the pods of t as long as requests are held for it, or one of its pods takes requests only because its probes have
// succeeded.
func (p *Prober) run(t *route.Target, news <-chan struct{}) {
	asking := map[string]*pod{} // by IP address
	end := func(ip string) {
		asking[ip].end()
		delete(asking, ip)
	}
	defer func() {
		for ip := range asking {
			end(ip)
		}
	}()
	tick := time.NewTicker(time.Second) // nothing reports that no request waits any more
	defer tick.Stop()
	for {
		unready := p.options.Unready(t)
		vouched := false
		for ip, pod := range asking {
			switch {
			case !slices.Contains(unready.IPs, ip): // the pod is ready, or gone
				end(ip)
			case !reflect.DeepEqual(pod.readiness, unready.Readiness):
				end(ip)
				p.options.Vouch(t, ip, route.WordNone)
			default:
				vouched = vouched || pod.vouched.Load()
			}
		}
		if !vouched && !t.Awaits() && p.stop(t) {
			return
		}
		if unready.Readiness != nil && t.Awaits() && !vouched {
			for _, ip := range unready.IPs {
				if asking[ip] == nil && len(asking) < maxPods {
					asking[ip] = p.ask(t, ip, unready.Readiness)
				}
			}
		}
		select {
		case <-news:
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
	}
}

// ask probes a pod in a goroutine of its own.
func (p *Prober) ask(t *route.Target, ip string, r *api.Readiness) *pod {
	ctx, cancel := context.WithCancel(p.ctx)
	asked := &pod{prober: p, target: t, ip: ip, readiness: r, ended: make(chan struct{})}
	asked.end = func() {
		cancel()
		<-asked.ended
	}
	go func() {
		defer close(asked.ended)
		asked.run(ctx)
	}()
	return asked
}
