// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// snapshot is what has been used until a moment.
type snapshot struct {
	at       time.Time
	usage    map[string]usage
	requests apiRequests
	peers    float64
}

func (m *measurement) snapshot(ctx context.Context) (s snapshot, err error) {
	s.at = time.Now()
	if s.usage, err = usages(); err != nil {
		return s, err
	}
	if s.requests, err = readRequests(ctx, m.client.CoreV1().RESTClient()); err != nil {
		return s, err
	}
	s.peers, err = m.peerBytes(ctx)
	return s, err
}

// peerBytes is what one interceptor and the other have sent to each other so far.
func (m *measurement) peerBytes(ctx context.Context) (float64, error) {
	pods, err := m.pods(ctx, "interceptor")
	if err != nil {
		return 0, err
	}
	parts, err := findPods()
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(parts, func(p part) bool { return p.name == "interceptor" })
	if i < 0 {
		return 0, errors.New("there is no interceptor")
	}
	total := 0.0
	for _, pod := range pods { // of its own address there are no connections
		n, err := peerBytes(ctx, parts[i], pod.Status.PodIP)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// idle measures while all apps sleep and nobody visits.
func (m *measurement) idle(ctx context.Context) error {
	period := time.Minute
	if m.options.quick {
		period = 10 * time.Second
	}
	if _, err := m.audit.more(); err != nil {
		return err
	}
	before, err := m.snapshot(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, period); err != nil {
		return err
	}
	after, err := m.snapshot(ctx)
	if err != nil {
		return err
	}
	events, err := m.audit.more()
	if err != nil {
		return err
	}
	m.heap(ctx, "idle")
	seconds := after.at.Sub(before.at).Seconds()
	m.idleParts(before, after, seconds)
	m.idleRequests(after.requests.since(before.requests), events, seconds)
	m.figures.limit("idle-peer-bytes", (after.peers-before.peers)/seconds, "bytes/s between two interceptors", peerBytesGoal, 1)
	return nil
}

// peerBytesGoal is what keeping a connection alive may take, whatever the number of apps.
const peerBytesGoal = 20

// memoryLimits are the chart's.
func memoryLimits() map[string]float64 {
	return map[string]float64{"controller": 256, "interceptor": 512}
}

func (m *measurement) idleParts(before, after snapshot, seconds float64) {
	for _, name := range slices.Sorted(maps.Keys(after.usage)) {
		memory := after.usage[name].memory / (1 << 20)
		if limit, ok := memoryLimits()[name]; ok {
			m.figures.limit("memory-"+name, memory, "MiB", limit, 1)
		} else {
			m.figures.add("memory-"+name, memory, "MiB")
		}
		m.figures.add("idle-cpu-"+name, 1000*(after.usage[name].cpu-before.usage[name].cpu).Seconds()/seconds, "thousandths of a core")
	}
}

func (m *measurement) idleRequests(all apiRequests, events []auditEvent, seconds float64) {
	m.figures.add("idle-requests", all.total()/seconds, "requests/s")
	own := ours(events)
	m.figures.add("idle-requests-of-ours", own.total()/seconds, "requests/s")
	m.figures.limit("idle-writes-of-ours", 3600*appWrites(events)/seconds/float64(len(m.apps)), "writes per app and hour", 1, 0)
	if m.options.keda {
		keda := of(events, "keda")
		m.figures.add("idle-requests-of-keda", keda.total()/seconds, "requests/s")
		m.figures.add("idle-writes-of-keda", 3600*keda.writes()/seconds/float64(len(m.apps)), "writes per app and hour")
	}
	for i, k := range all.often() {
		if i == 10 {
			break
		}
		m.say("  idle: %s %.2f/s", k, all[k]/seconds)
	}
	for _, k := range own.often() {
		m.say("  idle, ours: %s %.2f/s", k, own[k]/seconds)
	}
}

// appWrites is how many of our writes are for apps. The rest renews leases, in our own namespace.
func appWrites(events []auditEvent) float64 {
	n := 0.0
	for _, e := range events {
		if ns, _ := e.account(); ns == product && isWrite(e.Verb) && e.ObjectRef.Namespace != product {
			n++
		}
	}
	return n
}

// restart deletes an interceptor and looks at the one that replaces it.
func (m *measurement) restart(ctx context.Context) error {
	old, err := m.pods(ctx, "interceptor")
	if err != nil || len(old) == 0 {
		return errors.Join(err, errors.New("there is no interceptor"))
	}
	parts, err := findPods()
	if err != nil {
		return err
	}
	known := map[int]bool{}
	for _, p := range parts {
		known[p.pid] = true
	}
	began := time.Now()
	if err := m.client.CoreV1().Pods(product).Delete(ctx, old[0].Name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("deleting an interceptor: %w", err)
	}
	fresh := part{}
	if err := poll(ctx, time.Minute, "the new interceptor", func() (bool, error) {
		parts, err := findPods()
		for _, p := range parts {
			if p.name == "interceptor" && !known[p.pid] {
				fresh = p
			}
		}
		return fresh.pid != 0, err
	}); err != nil {
		return err
	}
	if err := poll(ctx, 3*time.Minute, "the new interceptor to be ready", func() (bool, error) {
		now, err := m.pods(ctx, "interceptor")
		for _, p := range now {
			if isReady(p) && !slices.ContainsFunc(old, func(o corev1.Pod) bool { return o.Name == p.Name }) {
				return true, nil
			}
		}
		return false, err
	}); err != nil {
		return err
	}
	ready := time.Since(began)
	use, err := fresh.use()
	if err != nil {
		return err
	}
	m.figures.add("restart-seconds", ready.Seconds(), "s")
	m.figures.limit("restart-cpu", use.cpu.Seconds(), "s", 10, 1)
	return m.restartWrites(ctx, began)
}

// restartWrites counts what the restart makes us write, which takes longer than until the new interceptor is ready.
func (m *measurement) restartWrites(ctx context.Context, began time.Time) error {
	events, err := m.quiet(ctx)
	if err != nil {
		return err
	}
	m.figures.add("restart-quiet-seconds", time.Since(began).Seconds(), "s")
	m.figures.limit("restart-writes-per-app", appWrites(events)/float64(len(m.apps)), "writes", 2, 1)
	m.tell("restart", ours(events), len(m.apps))
	return m.findRoutes(ctx)
}
