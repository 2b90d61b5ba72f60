// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"cmp"
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
	// Doze is how long a port without a new connection keeps a goroutine. Default 1 s.
	Doze time.Duration
	Log  logr.Logger
}

func (o *Options) setDefaults() {
	o.Retry = cmp.Or(o.Retry, time.Second)
	o.Doze = cmp.Or(o.Doze, time.Second)
}

// Manager has the port and the server of each route. A route without connections has no goroutine: see watcher. The Manager's
// goroutines end with Shutdown.
type Manager struct {
	options Options
	watcher *watcher // nil where there is none
	// drains are the closed routes whose connections have not ended yet, and retries the routes whose ports could not be opened.
	drains, retries sync.WaitGroup
	// cut is closed to end at once what the drain timeout would still allow.
	cut chan struct{}
	// accepted counts connections.
	accepted atomic.Int64

	// mu protects all below, and whether a server listens.
	mu     sync.Mutex
	routes map[*route.Route]*server
	ports  map[int32]bool // all that have ever been open
	closed bool
}

// NewManager returns a Manager without routes.
func NewManager(o Options) *Manager {
	o.setDefaults()
	m := &Manager{options: o, cut: make(chan struct{}), routes: map[*route.Route]*server{}, ports: map[int32]bool{}}
	m.watcher = newWatcher(o.Log)
	return m
}

// Open implements route.Listeners. When it returns, the port is open, unless that has failed. Then the failure is logged, the port is
// tried again, the other routes work, and the injector publishes no port that does not answer.
func (m *Manager) Open(r *route.Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.routes[r] != nil {
		return
	}
	s := newServer(m, r)
	m.routes[r] = s
	if m.listen(s) {
		return
	}
	s.stop = make(chan struct{})
	m.retries.Go(func() { m.retry(s) })
}

// Close implements route.Listeners.
func (m *Manager) Close(r *route.Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.routes[r]; s != nil {
		m.close(s)
	}
}

// close closes the port of s, and lets its connections end. The caller holds mu.
func (m *Manager) close(s *server) {
	delete(m.routes, s.route)
	if s.stop != nil {
		close(s.stop)
	}
	if s.listener != nil {
		m.drains.Go(s.close)
	}
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
	for _, s := range m.routes {
		m.close(s)
	}
	m.mu.Unlock()
	m.retries.Wait()
	m.drains.Wait()
	m.watcher.close()
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

// listen opens the port of s, and reports whether that worked. The caller holds mu.
func (m *Manager) listen(s *server) bool {
	if err := s.listen(); err != nil {
		s.log().Error(err, "Opening route failed; it is unavailable here until this succeeds")
		return false
	}
	m.ports[s.route.Port.Listen] = true
	if log := s.log().V(1); log.Enabled() {
		log.Info("Opened route")
	}
	return true
}

// retry opens the port of s, trying as often as necessary.
func (m *Manager) retry(s *server) {
	tick := time.NewTicker(m.options.Retry)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		m.mu.Lock()
		done := m.routes[s.route] != s || m.listen(s)
		m.mu.Unlock()
		if done {
			return
		}
	}
}
