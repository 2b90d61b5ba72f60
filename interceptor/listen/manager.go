// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/forward"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// Options configure a Manager.
type Options struct {
	// Host is the address that routes listen on. Default all addresses.
	Host   string
	Engine *forward.Engine
	// MaxConnections is how many client connections one route may have.
	MaxConnections int64
	// DrainTimeout is how long the requests and connections of a closed route may go on.
	DrainTimeout time.Duration
	// Retry is the pause before the next attempt to open a port. Default 1 s.
	Retry time.Duration
	Log   logr.Logger
}

func (o *Options) setDefaults() {
	o.Retry = cmp.Or(o.Retry, time.Second)
}

// Manager has the port and the server of each route. Its goroutines end with Shutdown.
type Manager struct {
	options Options
	servers sync.WaitGroup
	// cut is closed to end at once what the drain timeout would still allow.
	cut chan struct{}
	// accepted counts connections.
	accepted atomic.Int64

	// mu protects all below.
	mu     sync.Mutex
	routes map[*route.Route]*entry
	ports  map[int32]bool // all that have ever been open
	closed bool
}

type entry struct {
	// stop ends the server.
	stop chan struct{}
	// tried is closed once the port is open, or could not be opened.
	tried chan struct{}
}

// NewManager returns a Manager without routes.
func NewManager(o Options) *Manager {
	o.setDefaults()
	return &Manager{options: o, cut: make(chan struct{}), routes: map[*route.Route]*entry{}, ports: map[int32]bool{}}
}

// Open implements route.Listeners.
func (m *Manager) Open(r *route.Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.routes[r] != nil {
		return
	}
	e := &entry{stop: make(chan struct{}), tried: make(chan struct{})}
	m.routes[r] = e
	m.servers.Go(func() { m.serve(r, e) })
}

// Close implements route.Listeners.
func (m *Manager) Close(r *route.Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.routes[r]; e != nil {
		delete(m.routes, r)
		close(e.stop)
	}
}

// WaitOpen waits until every present route is open. It does not wait for a port that cannot be opened: the failure is logged, the
// port is tried again, the other routes work, and the injector publishes no port that does not answer.
func (m *Manager) WaitOpen(ctx context.Context) error {
	m.mu.Lock()
	waits := make([]chan struct{}, 0, len(m.routes))
	for _, e := range m.routes {
		waits = append(waits, e.tried)
	}
	m.mu.Unlock()
	for _, tried := range waits {
		select {
		case <-tried:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Accepted returns how many connections have arrived so far, over all routes.
func (m *Manager) Accepted() int64 { return m.accepted.Load() }

// Shutdown stops accepting. It returns when all requests and connections have ended and their clients have received everything, or
// when they have been cut after timeout.
func (m *Manager) Shutdown(timeout time.Duration) {
	cut := time.AfterFunc(timeout, func() { close(m.cut) })
	defer cut.Stop()
	m.mu.Lock()
	m.closed = true
	for r, e := range m.routes {
		delete(m.routes, r)
		close(e.stop)
	}
	m.mu.Unlock()
	m.servers.Wait()
	m.waitTaken()
}

// waitTaken waits until clients have received everything that was written to connections that are closed by now. The kernel keeps
// sending without us, but not without our pod's network, which ends with us: a slow client would miss the end of its answer without
// any error.
func (m *Manager) waitTaken() {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := unsent(m.ports) // no further port is opened by now
		if err != nil {
			m.options.Log.Error(err, "Not waiting for what clients have yet to take")
		}
		if n == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-m.cut:
			m.options.Log.Info("Leaving clients that did not take their answers in time", "connections", n)
			return
		}
	}
}

func (m *Manager) opened(port int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ports[port] = true
}

// serve opens the port of r, trying as often as necessary, and serves it until it is stopped.
func (m *Manager) serve(r *route.Route, e *entry) {
	log := m.options.Log.WithValues("namespace", r.Namespace, "service", r.Service, "port", r.Port.Port,
		"listen", r.Port.Listen)
	var once sync.Once
	tried := func() { once.Do(func() { close(e.tried) }) }
	defer tried()
	for {
		s, err := newServer(m.options, r, &m.accepted, log)
		if err == nil {
			m.opened(r.Port.Listen)
			log.V(1).Info("Opened route")
			tried()
			s.run(e.stop, m.cut)
			log.V(1).Info("Closed route")
			return
		}
		log.Error(err, "Opening route failed; it is unavailable here until this succeeds")
		tried()
		select {
		case <-e.stop:
			return
		case <-time.After(m.options.Retry):
		}
	}
}
