// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// used is how many apps have visitors when KEDA's work for them is counted.
	used = 100
	// kedaRate is how many requests each second KEDA's client allows itself.
	kedaRate = 20
	// manyApps is for how many apps in use the figures are extrapolated.
	manyApps = 10_000
)

// inUse counts what KEDA writes for apps that have visitors.
func (m *measurement) inUse(ctx context.Context) error {
	n := min(used, len(m.apps))
	period := 90 * time.Second // three of KEDA's polls
	if m.options.quick {
		period = 30 * time.Second
	}
	apps, err := m.asleepApps(n)
	if err != nil {
		return err
	}
	if _, err := visitors(ctx, apps, 1); err != nil {
		return err
	}
	visiting, stop := context.WithCancel(ctx)
	defer stop()
	var everybody errgroup.Group
	everybody.Go(func() error { return visitAgain(visiting, apps) })
	if _, err := m.audit.more(); err != nil {
		return errors.Join(err, pause(ctx, 0))
	}
	if err := pause(ctx, period); err != nil {
		return err
	}
	events, err := m.audit.more()
	stop()
	if err := errors.Join(err, everybody.Wait()); err != nil {
		return err
	}
	keda := of(events, "keda")
	each := keda.writes() / float64(n) / period.Seconds()
	m.figures.add("in-use-writes-of-keda", 3600*each, "writes per app in use and hour")
	m.figures.compare("in-use-writes-of-keda-for-10000", manyApps*each, "writes/s for 10,000 apps in use", kedaRate)
	m.figures.add("in-use-writes-of-ours", 3600*appWrites(events)/float64(n)/period.Seconds(), "writes per app in use and hour")
	m.tell(fmt.Sprintf("KEDA in %s", period), keda, n)
	return m.fallAsleep(ctx)
}

// visitAgain asks each app every few seconds until ctx ends.
func visitAgain(ctx context.Context, apps []*app) error {
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(5 * time.Second / time.Duration(len(apps)))
	defer tick.Stop()
	for i := 0; ; i++ {
		if err := get(client, "http://"+apps[i%len(apps)].route); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
