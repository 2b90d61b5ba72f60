// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// measurement is a run in one cluster.
type measurement struct {
	*world
	options options
	audit   *auditLog
	figures *figures // of the present size
	stored  map[string]stored
}

// measure measures all sizes, one after the other: each adds apps to those that are there. It writes the rows to results.json even if
// something fails, so that nobody has to wait for them twice.
func measure(ctx context.Context, o options) (err error) {
	if err := serveApps(ctx); err != nil {
		return err
	}
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	m := &measurement{world: w, options: o}
	if m.audit, err = openAudit(); err != nil {
		return err
	}
	defer m.audit.close()
	var rows []row
	defer func() { err = errors.Join(err, writeRows(filepath.Join(o.out, "results.json"), rows)) }()
	if err := install(ctx); err != nil {
		return err
	}
	mode := "native"
	if o.keda {
		mode = "keda"
	}
	for i, n := range o.sizes {
		m.figures = &figures{prefix: fmt.Sprintf("%s-%d-", mode, n)}
		m.say("%s, %d apps", mode, n)
		err := m.size(ctx, n)
		if err == nil && i == len(o.sizes)-1 {
			err = m.uninstall(ctx)
		}
		rows = append(rows, m.figures.rows...)
		if err != nil {
			return fmt.Errorf("measuring %d apps: %w", n, err)
		}
	}
	return nil
}

// size measures one size.
func (m *measurement) size(ctx context.Context, n int) error {
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"stopping scale-to-zero", m.stop},
		{"making apps", func(ctx context.Context) error { return m.create(ctx, n) }},
		{"starting scale-to-zero", m.publish},
		{"falling asleep", m.fallAsleep},
		{"counting objects", m.countObjects},
		{"idle", m.idle},
		{"restarting an interceptor", m.restart},
		{"a hundred wakes", func(ctx context.Context) error { return m.wake(ctx, min(100, n), 1) }},
		{"a thousand wakes", m.wakeThousand},
		{"admission", m.admission},
	}
	if m.options.keda {
		steps = append(steps, struct {
			what string
			do   func(context.Context) error
		}{"apps in use", m.inUse})
	}
	for _, s := range steps {
		m.say("%d apps: %s", n, s.what)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// publish starts the interceptors and then the controller, and takes the time until every app is intercepted.
func (m *measurement) publish(ctx context.Context) error {
	var err error
	if m.stored, err = storedIn(ctx, m.namespace); err != nil {
		return err
	}
	if err := m.scale(ctx, "interceptor", interceptors); err != nil {
		return err
	}
	if _, err := m.audit.more(); err != nil {
		return err
	}
	before, err := usages()
	if err != nil {
		return err
	}
	fresh := len(m.apps) - m.count(intercepted)
	began := time.Now()
	if err := m.scale(ctx, "controller", 1); err != nil {
		return err
	}
	stopProfile := m.profile(ctx, "publish")
	if err := m.until(ctx, "every app to be intercepted", publishLimit, intercepted); err != nil {
		return err
	}
	took := time.Since(began)
	stopProfile()
	events, err := m.audit.more()
	if err != nil {
		return err
	}
	after, err := usages()
	if err != nil {
		return err
	}
	m.figures.add("publish-seconds", took.Seconds(), "s")
	m.figures.add("publish-requests-per-app", ours(events).total()/float64(fresh), "requests")
	m.figures.add("publish-cpu-controller", after["controller"].cpu.Seconds(), "s")
	for _, name := range []string{"interceptor", "kube-apiserver"} {
		m.figures.add("publish-cpu-"+name, (after[name].cpu - before[name].cpu).Seconds(), "s")
	}
	m.tell("publishing", ours(events), fresh)
	return m.findRoutes(ctx)
}

const (
	publishLimit = 15 * time.Minute
	sleepLimit   = 10 * time.Minute
)

// tell prints the most frequent requests of an account, for each app.
func (m *measurement) tell(what string, requests apiRequests, apps int) {
	for i, k := range requests.often() {
		if i == 8 {
			break
		}
		m.say("  %s: %s %.2f for each of %d apps", what, k, requests[k]/float64(apps), apps)
	}
}

// fallAsleep waits until all apps sleep and everything is quiet.
func (m *measurement) fallAsleep(ctx context.Context) error {
	if err := m.until(ctx, "every app to sleep", sleepLimit, asleep); err != nil {
		return err
	}
	_, err := m.quiet(ctx)
	return err
}

// quiet waits until we have written nothing about an app for a while, and returns what was asked for meanwhile.
func (m *measurement) quiet(ctx context.Context) ([]auditEvent, error) {
	var all []auditEvent
	last := time.Now()
	err := poll(ctx, 5*time.Minute, "quiet", func() (bool, error) {
		events, err := m.audit.more()
		all = append(all, events...)
		if appWrites(events) > 0 {
			last = time.Now()
		}
		return time.Since(last) > 5*time.Second, err
	})
	return all, err
}

// countObjects compares what the apps that were made last have in etcd with what they had before they were intercepted.
func (m *measurement) countObjects(ctx context.Context) error {
	now, err := storedIn(ctx, m.namespace)
	if err != nil {
		return err
	}
	apps := 0.0
	for _, a := range m.sorted() {
		if a.namespace == m.namespace {
			apps++
		}
	}
	before, after := sum(m.stored), sum(now)
	m.figures.compare("objects-of-ours", float64(after.objects-before.objects)/apps, "objects per app", float64(before.objects)/apps)
	m.figures.compare("bytes-of-ours", float64(after.bytes-before.bytes)/apps, "bytes per app", float64(before.bytes)/apps)
	for resource, s := range now {
		b := m.stored[resource]
		if objects := s.objects - b.objects; objects != 0 || s.bytes != b.bytes {
			m.say("  %s: %.2f objects and %.0f bytes more for each app", resource, float64(objects)/apps, float64(s.bytes-b.bytes)/apps)
		}
	}
	return nil
}

// uninstall takes the time until Helm has restored every app.
func (m *measurement) uninstall(ctx context.Context) error {
	m.say("uninstalling")
	began := time.Now()
	if err := helm(ctx, "uninstall", product, "-n", product, "--wait", "--timeout", "15m"); err != nil {
		return err
	}
	m.figures.add("uninstall-seconds", time.Since(began).Seconds(), "s")
	if left := m.count(intercepted); left > 0 {
		return fmt.Errorf("uninstalling: %d of %d apps are still intercepted", left, len(m.apps))
	}
	return nil
}
