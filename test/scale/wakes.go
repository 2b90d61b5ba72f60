// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
)

// visit is a request to a sleeping app.
type visit struct {
	app                    *app
	sent, scaled, answered time.Time
}

// wakeLimit is how long a visit may take.
const wakeLimit = 2 * time.Minute

// visitors sends one request to each app at once. The connections are open before, so that the requests go out one right after the
// other, in this order. Each thousandth of them comes from an address of its own among sources.
func visitors(ctx context.Context, apps []*app, sources int) ([]visit, error) {
	visits := make([]visit, len(apps))
	conns := make([]net.Conn, len(apps))
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i, a := range apps {
		from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(source(i%sources), 0))
		d := net.Dialer{LocalAddr: from, Timeout: 10 * time.Second}
		c, err := d.DialContext(ctx, "tcp", a.route)
		if err != nil {
			return nil, fmt.Errorf("connecting to the interceptor: %w", err)
		}
		_ = c.SetDeadline(time.Now().Add(wakeLimit))
		conns[i], visits[i].app = c, a
	}
	for i, a := range apps {
		visits[i].sent = time.Now()
		if _, err := fmt.Fprintf(conns[i], "GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: scale\r\nConnection: close\r\n\r\n", a.name); err != nil {
			return nil, fmt.Errorf("sending a request: %w", err)
		}
	}
	var everybody errgroup.Group
	for i := range visits {
		everybody.Go(func() error {
			resp, err := http.ReadResponse(bufio.NewReader(conns[i]), nil)
			if err != nil {
				return fmt.Errorf("reading the answer of %s: %w", visits[i].app.key(), err)
			}
			defer resp.Body.Close()
			visits[i].answered = time.Now()
			if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
				return fmt.Errorf("reading the answer of %s: %s: %w: %.200s", visits[i].app.key(), resp.Status, err, b)
			}
			return nil
		})
	}
	return visits, everybody.Wait()
}

// source is an address of a client: those of kwok's pods are ours, and the last of them are not used.
func source(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, 255, byte(1 + i%250)}) }

// asleepApps returns n apps that sleep.
func (m *measurement) asleepApps(n int) ([]*app, error) {
	var apps []*app
	for _, a := range m.sorted() {
		m.mu.Lock()
		sleeps := a.replicas == 0 && a.ready == 0
		m.mu.Unlock()
		if sleeps && len(apps) < n {
			apps = append(apps, a)
		}
	}
	if len(apps) < n {
		return nil, fmt.Errorf("only %d of %d apps sleep", len(apps), n)
	}
	return apps, nil
}

// wake sends n requests to n sleeping apps at once and takes the time until the API server is asked to scale each of them.
func (m *measurement) wake(ctx context.Context, n, sources int) error {
	apps, err := m.asleepApps(n)
	if err != nil {
		return err
	}
	if _, err := m.audit.more(); err != nil {
		return err
	}
	before, err := usages()
	if err != nil {
		return err
	}
	visits, err := visitors(ctx, apps, sources)
	if err != nil {
		return err
	}
	events, err := m.audit.more()
	if err != nil {
		return err
	}
	if err := match(visits, events); err != nil {
		return err
	}
	if err := m.fallAsleep(ctx); err != nil { // putting them to sleep is a part of what a wake costs
		return err
	}
	after, err := usages()
	if err != nil {
		return err
	}
	m.tellWakes(fmt.Sprintf("wake-%d", n), visits)
	for _, name := range []string{"controller", "interceptor"} {
		m.figures.add("wake-cpu-"+name, milliseconds(after[name].cpu-before[name].cpu)/float64(n), "ms of CPU per wake and sleep")
	}
	return nil
}

// scaleGoal is how long a hundred requests at once may take until the API server is asked to scale, in milliseconds.
const scaleGoal = 50

func (m *measurement) tellWakes(name string, visits []visit) {
	var patches, answers []float64
	for _, v := range visits {
		patches = append(patches, milliseconds(v.scaled.Sub(v.sent)))
		answers = append(answers, milliseconds(v.answered.Sub(v.sent)))
	}
	m.figures.add(name+"-patch-p50", percentile(patches, 50), "ms")
	if len(visits) <= 100 {
		m.figures.limit(name+"-patch-p99", percentile(patches, 99), "ms", scaleGoal, 1)
	} else {
		m.figures.add(name+"-patch-p99", percentile(patches, 99), "ms")
	}
	m.figures.add(name+"-answer-p50", percentile(answers, 50), "ms")
	m.figures.add(name+"-answer-p99", percentile(answers, 99), "ms")
}

// match finds the first request to scale of each visit's app.
func match(visits []visit, events []auditEvent) error {
	first := map[string]time.Time{}
	for _, e := range events {
		if at, found := first[e.key()]; e.scales() && (!found || e.RequestReceivedTimestamp.Before(at)) {
			first[e.key()] = e.RequestReceivedTimestamp
		}
	}
	for i, v := range visits {
		at, ok := first[v.app.key()]
		if !ok {
			return errors.New("nobody has asked the API server to scale " + v.app.key())
		}
		visits[i].scaled = at
	}
	return nil
}
