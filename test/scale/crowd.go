// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	crowd = 1000
	// crowdSources is how many clients they are, since one may only wake so many apps.
	crowdSources = 10
	// maxWakes is how many apps an interceptor lets wake at a time.
	maxWakes = 200
	// probed is how many awake apps are watched meanwhile.
	probed = 10
)

// wakeThousand sends a thousand requests to as many sleeping apps at once, and measures what those apps notice that are awake. It
// compares with requests straight to the pods: on a machine that is busy with a thousand pods, those get slower as well.
func (m *measurement) wakeThousand(ctx context.Context) error {
	n := min(crowd, len(m.apps)-probed)
	if n < crowd/2 && !m.options.quick {
		m.say("  too few apps")
		return nil
	}
	apps, err := m.asleepApps(n + probed)
	if err != nil {
		return err
	}
	awakeApps, apps := apps[:probed], apps[probed:]
	if _, err := visitors(ctx, awakeApps, 1); err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var watchers errgroup.Group
	p := &prober{apps: awakeApps}
	watchers.Go(func() error { return p.run(watching) })
	if err := pause(ctx, 5*time.Second); err != nil {
		return err
	}
	if _, err := m.audit.more(); err != nil {
		return err
	}
	began := time.Now()
	visits, err := visitors(ctx, apps, crowdSources)
	took := time.Since(began)
	stop()
	if probing := watchers.Wait(); err != nil || probing != nil {
		return fmt.Errorf("waking %d apps: %w, and meanwhile: %w", n, err, probing)
	}
	events, err := m.audit.more()
	if err != nil {
		return err
	}
	if err := match(visits, events); err != nil {
		return err
	}
	m.tellWakes(fmt.Sprintf("wake-%d", n), visits)
	m.figures.add("crowd-seconds", took.Seconds(), "s")
	m.tellOrder(visits)
	m.tellProbes(p, began)
	return m.fallAsleep(ctx)
}

// tellOrder says how many apps were waking at a time, and how far from its turn one was.
func (m *measurement) tellOrder(visits []visit) {
	var spans []span
	served := make([][]time.Time, interceptors)
	for _, v := range visits {
		spans = append(spans, span{v.scaled, v.answered})
		served[v.app.interceptorIndex] = append(served[v.app.interceptorIndex], v.scaled)
	}
	m.figures.limit("crowd-waking", float64(most(spans)), "apps at a time", interceptors*maxWakes, 1)
	far := 0
	for _, s := range served {
		far = max(far, displaced(s))
	}
	m.figures.limit("crowd-displaced", float64(far), "places", maxWakes, 1)
}

// tellProbes compares the latency of apps that are awake before and during the wakes, beside that of their pods.
func (m *measurement) tellProbes(p *prober, began time.Time) {
	through, straight := p.through.split(began), p.straight.split(began)
	m.figures.compare("crowd-awake-p50", percentile(through.after, 50), "ms", percentile(through.before, 50))
	m.figures.compare("crowd-awake-p99", percentile(through.after, 99), "ms", percentile(through.before, 99))
	m.figures.compare("crowd-machine-p50", percentile(straight.after, 50), "ms", percentile(straight.before, 50))
	slower := percentile(through.after, 50) / percentile(through.before, 50)
	machine := percentile(straight.after, 50) / percentile(straight.before, 50)
	m.figures.limit("crowd-slower", slower, "times", machine, 1.2)
}

// probe is how long a request took, in milliseconds.
type probe struct {
	at   time.Time
	took float64
}

type probes []probe

type halves struct{ before, after []float64 }

func (p probes) split(at time.Time) halves {
	var h halves
	for _, x := range p {
		if x.at.Before(at) {
			h.before = append(h.before, x.took)
		} else {
			h.after = append(h.after, x.took)
		}
	}
	return h
}

// prober sends requests to apps that are awake, through an interceptor and straight to this program, which answers for the pods, in turn.
type prober struct {
	apps              []*app
	through, straight probes
}

func (p *prober) run(ctx context.Context) error {
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		for _, to := range []struct {
			list    *probes
			address string
		}{{&p.through, p.apps[i%len(p.apps)].route}, {&p.straight, fmt.Sprintf("%s:%d", source(i%len(p.apps)), appPort)}} {
			began := time.Now()
			if err := get(client, "http://"+to.address); err != nil {
				return err
			}
			*to.list = append(*to.list, probe{began, milliseconds(time.Since(began))})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func get(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return fmt.Errorf("asking an app that is awake: %w", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking an app that is awake: %s: %w", resp.Status, err)
	}
	return nil
}
