// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package ready

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// pod is a pod that is being probed.
type pod struct {
	prober    *Prober
	target    *route.Target
	ip        string
	readiness *api.Readiness
	end       func()
	ended     chan struct{}
	// vouched is set while the pod takes requests only because its probes have succeeded.
	vouched atomic.Bool
}

// run probes the pod until ctx is done.
func (p *pod) run(ctx context.Context) {
	for {
		if !p.await(ctx) {
			return
		}
		log := p.prober.options.Log.WithValues("namespace", p.target.Key.Namespace, "workload", p.target.Key.Workload, "pod", p.ip)
		p.vouch(route.WordReady)
		log.Info("A pod takes requests by its own probes")
		err := p.watch(ctx)
		switch {
		case ctx.Err() != nil: // the pod is ready, or gone
			p.vouched.Store(false)
			return
		case errors.Is(err, errTrust):
			p.vouch(route.WordBroken)
		default:
			p.vouch(route.WordNone)
		}
		log.Info("A pod takes no more requests", "error", err.Error())
		if errors.Is(err, errTrust) {
			<-ctx.Done()
			return
		}
	}
}

func (p *pod) vouch(word route.Word) {
	p.vouched.Store(word == route.WordReady)
	p.prober.options.Vouch(p.target, p.ip, word)
}

// await probes the pod until all probes have succeeded, each as often in a row as required. It reports whether they have.
func (p *pod) await(ctx context.Context) bool {
	probes := p.readiness.Probes
	successes := make([]int32, len(probes))
	tick := time.NewTicker(p.prober.options.Every)
	defer tick.Stop()
	for {
		left := false
		for i := range probes {
			if probes[i].Startup && successes[i] >= probes[i].Successes {
				continue
			}
			if p.prober.client.run(ctx, p.ip, &probes[i]) != nil {
				successes[i], left = 0, true
				break // start later probes only in the next round
			}
			if successes[i]++; successes[i] < probes[i].Successes {
				left = true
				if probes[i].Startup {
					break // the container's readiness probe starts later
				}
			}
		}
		if ctx.Err() != nil {
			return false
		}
		if !left {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// errTrust ends the time for which a pod is trusted.
var errTrust = errors.New("kubernetes has not called it ready in time")

// watch keeps probing until the pod says that it is not ready, has ended, or has used up its time. The error says which.
func (p *pod) watch(ctx context.Context) error {
	trust := time.NewTimer(time.Duration(p.readiness.Trust))
	defer trust.Stop()
	tick := time.NewTicker(p.prober.options.Again)
	defer tick.Stop()
	for {
		for i := range p.readiness.Probes {
			// Startup probes too: some containers have no other, and one that restarts has to start again.
			if err := p.prober.client.run(ctx, p.ip, &p.readiness.Probes[i]); err != nil && !slow(err) {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-trust.C:
			return errTrust
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// slow reports whether a probe has failed by a timeout. The pod may be busy with its requests.
func slow(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
