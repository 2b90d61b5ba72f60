// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package metrics has the interceptor's Prometheus metrics. Their labels name Services and workloads, which the cluster's users
// create, and never contain anything from a request.
package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

const namespace = "scale_to_zero"

// Metrics has all collectors.
type Metrics struct {
	requests  *prometheus.CounterVec
	ignored   *prometheus.CounterVec
	held      *prometheus.HistogramVec
	wakes     *prometheus.CounterVec
	coldStart *prometheus.HistogramVec
	registry  prometheus.Registerer
}

// New registers the collectors.
func New(r prometheus.Registerer) *Metrics {
	seconds := []float64{.1, .25, .5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600}
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "requests_total",
			Help: "HTTP requests answered, by status class; \"none\" are those broken off before an answer.",
		}, []string{"namespace", "service", "code"}),
		ignored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "ignored_requests_total",
			Help: "HTTP requests of probes, scrapers and forgotten tabs and for ignored paths, which neither wake nor count.",
		}, []string{"namespace", "service"}),
		held: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "held_seconds", Buckets: seconds,
			Help: "How long requests and connections waited for a pod or for a place at one, if they had to.",
		}, []string{"namespace", "service"}),
		wakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "wakes_total",
			Help: "How often a request found the workload asleep and woke it.",
		}, []string{"namespace", "workload"}),
		coldStart: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "cold_start_seconds", Buckets: seconds,
			Help: "Time from the request that woke a workload to its first ready pod.",
		}, []string{"namespace", "workload"}),
	}
	m.registry = r
	r.MustRegister(m.requests, m.ignored, m.held, m.wakes, m.coldStart)
	return m
}

// Watch exposes the counts of all targets, which are read when Prometheus asks.
func (m *Metrics) Watch(targets func() []*route.Target) {
	m.registry.MustRegister(&pending{
		targets: targets,
		pending: prometheus.NewDesc(namespace+"_pending_requests",
			"Requests that have arrived and are not answered yet.", []string{"namespace", "workload"}, nil),
		held: prometheus.NewDesc(namespace+"_held_requests",
			"Requests that wait for a pod or for a place at one.", []string{"namespace", "workload"}, nil),
		awake: prometheus.NewDesc(namespace+"_awake_seconds",
			"How long this interceptor has seen the workload with pods without a break; 0 while it has none.",
			[]string{"namespace", "workload"}, nil),
	})
}

// WatchMemory exposes the memory that connections and requests have taken, which is read when Prometheus asks, and what they may take.
func (m *Metrics) WatchMemory(used func() int64, limit int64) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "budget_used_bytes",
			Help: "Memory that connections and requests have taken of this interceptor's budget.",
		}, func() float64 { return float64(used()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "budget_bytes",
			Help: "Memory that this interceptor has for connections and requests.",
		}, func() float64 { return float64(limit) }),
	)
}

// Route returns the observer of a Service's requests.
func (m *Metrics) Route(ns, service string) route.Metrics {
	return &routeMetrics{all: m, namespace: ns, service: service}
}

// Target returns the observer of a workload.
func (m *Metrics) Target(key route.Key) route.TargetMetrics { return &targetMetrics{all: m, key: key} }

// routeMetrics makes the series of a route at its first request: most routes of a large cluster never see one, and the series take more
// memory than all the rest of a route.
type routeMetrics struct {
	all                *Metrics
	namespace, service string
	series             atomic.Pointer[routeSeries]
}

type routeSeries struct {
	held     prometheus.Observer
	ignored  prometheus.Counter
	answered [6]prometheus.Counter
}

func (m *routeMetrics) get() *routeSeries {
	if s := m.series.Load(); s != nil {
		return s
	}
	s := &routeSeries{
		held: m.all.held.WithLabelValues(m.namespace, m.service), ignored: m.all.ignored.WithLabelValues(m.namespace, m.service),
	}
	for i, class := range [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		s.answered[i] = m.all.requests.WithLabelValues(m.namespace, m.service, class)
	}
	m.series.Store(s) // whoever has just made them too has made the same ones
	return s
}

func (m *routeMetrics) Held(d time.Duration) { m.get().held.Observe(d.Seconds()) }

func (m *routeMetrics) Ignored() { m.get().ignored.Inc() }

func (m *routeMetrics) Answered(status int) {
	s, class := m.get(), status/100
	if class < 0 || class >= len(s.answered) {
		class = 0
	}
	s.answered[class].Inc()
}

// targetMetrics looks its series up each time: wakes are rare.
type targetMetrics struct {
	all *Metrics
	key route.Key
}

func (m *targetMetrics) Woken() {
	m.all.wakes.WithLabelValues(m.key.Namespace, m.key.Workload).Inc()
	m.all.coldStart.WithLabelValues(m.key.Namespace, m.key.Workload) // a start is about to follow
}

func (m *targetMetrics) ColdStart(d time.Duration) {
	m.all.coldStart.WithLabelValues(m.key.Namespace, m.key.Workload).Observe(d.Seconds())
}

// pending reads the targets' counts when asked.
type pending struct {
	targets              func() []*route.Target
	pending, held, awake *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (p *pending) Describe(ch chan<- *prometheus.Desc) {
	ch <- p.pending
	ch <- p.held
	ch <- p.awake
}

// Collect implements prometheus.Collector.
func (p *pending) Collect(ch chan<- prometheus.Metric) {
	for _, t := range p.targets() {
		ch <- prometheus.MustNewConstMetric(p.pending, prometheus.GaugeValue, float64(t.Pending()), t.Key.Namespace, t.Key.Workload)
		ch <- prometheus.MustNewConstMetric(p.held, prometheus.GaugeValue, float64(t.Held()), t.Key.Namespace, t.Key.Workload)
		awake := 0.0
		if t.HasPods() {
			awake = t.Up().Seconds()
		}
		ch <- prometheus.MustNewConstMetric(p.awake, prometheus.GaugeValue, awake, t.Key.Namespace, t.Key.Workload)
	}
}
