package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/forward"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

const (
	// A request's header has to be there within readHeaderTimeout.
	readHeaderTimeout = 30 * time.Second
	// idleTimeout is longer than ingress controllers keep connections open (nginx: 60 s), so that it is they who
	// close them, and no request meets a connection that we have just closed.
	idleTimeout    = 5 * time.Minute
	maxHeaderBytes = 256 << 10
)

// server serves one route.
type server struct {
	options Options
	route   *route.Route
	log     logr.Logger

	listener net.Listener
	http     *http.Server
	handler  http.Handler
	// sniffed takes the connections that turned out to be HTTP; nil where the protocol is given.
	sniffed *handover
	// ctx is the base of all requests and connections; cancel cuts them.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// requests counts those in the handler, the upgraded ones too, which net/http does not wait for.
	requests atomic.Int64
	draining atomic.Bool
	accepts  sync.WaitGroup // the goroutines that accept
	sniffing sync.WaitGroup // connections of which it is not known yet what they speak; added to by accepts only
	conns    sync.WaitGroup // TCP connections; added to by accepts and sniffing only
}

// newServer opens the route's port.
func newServer(o Options, r *route.Route, log logr.Logger) (*server, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	addr := net.JoinHostPort(o.Host, strconv.Itoa(int(r.Port.Listen)))
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		cancel(err)
		return nil, fmt.Errorf("listening: %w", err)
	}
	s := &server{
		options: o, route: r, log: log, listener: listener, handler: o.Engine.Handler(r), ctx: ctx, cancel: cancel,
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         new(http.Protocols),
		// OPTIONS * is the app's to answer.
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ErrorLog:                     forward.ErrorLog(log),
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s, nil
}

// run serves until stop is closed and everything has ended, or cut is closed too and everything has been cut.
func (s *server) run(stop, cut <-chan struct{}) {
	defer s.cancel(forward.ErrDraining)
	var serving sync.WaitGroup
	switch s.route.Port.Protocol {
	case api.ProtocolHTTP:
		serving.Go(func() { s.serveHTTP(s.listener) })
	case api.ProtocolTCP:
		s.accepts.Go(func() {
			s.accept(func(conn *net.TCPConn) { s.conns.Go(func() { s.carry(conn, nil) }) })
		})
	default:
		s.sniffed = newHandover(s.listener.Addr())
		serving.Go(func() { s.serveHTTP(s.sniffed) })
		s.accepts.Go(func() {
			s.accept(func(conn *net.TCPConn) { s.sniffing.Go(func() { s.sniff(conn) }) })
		})
	}
	<-stop
	s.drain(cut)
	serving.Wait()
}

// drain lets all that runs end, and cuts it when the drain timeout is over:
//
//  1. The port is closed. Connections that have just been accepted still find their server.
//  2. Idle keep-alive connections are closed; answers from now on say "Connection: close". Requests finish.
//  3. TCP connections and upgraded ones, which net/http does not wait for, are waited for just as long.
//  4. What is left then is cut by way of its context, and the last handlers return.
func (s *server) drain(cut <-chan struct{}) {
	timeout, cancel := context.WithTimeout(context.Background(), s.options.DrainTimeout)
	var cutting sync.WaitGroup
	cutting.Go(func() {
		select {
		case <-cut:
			cancel()
		case <-timeout.Done():
		}
		s.cancel(forward.ErrDraining)
	})
	s.draining.Store(true)
	_ = s.listener.Close() // it was open, and there is nothing to do about it otherwise
	s.accepts.Wait()
	s.sniffing.Wait()
	if err := s.http.Shutdown(timeout); err != nil {
		s.log.Info("cutting connections that did not end in time", "timeout", s.options.DrainTimeout)
	}
	s.conns.Wait()
	s.waitRequests(timeout)
	cancel()
	cutting.Wait()
}

// waitRequests waits for the handlers of upgraded connections, which http.Server.Shutdown does not.
func (s *server) waitRequests(timeout context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.requests.Load() > 0 {
		<-tick.C
		if timeout.Err() != nil {
			// The contexts are cancelled. Handlers that do not return even so are stuck in a write to a client
			// that does not read.
			_ = s.http.Close()
		}
	}
}

func (s *server) serveHTTP(l net.Listener) {
	err := s.http.Serve(l)
	if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		s.log.Error(err, "serving http")
	}
}

// accept hands each new connection to serve, which must not block.
func (s *server) accept(serve func(*net.TCPConn)) {
	for {
		conn, err := s.listener.Accept()
		switch {
		case err == nil:
			serve(conn.(*net.TCPConn))
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// Too many open files, or a connection that was gone before it was accepted. The port stays open.
			s.log.V(1).Info("accepting a connection failed", "error", err.Error())
			<-time.After(5 * time.Millisecond)
		}
	}
}

// sniff finds out what a connection speaks.
func (s *server) sniff(conn *net.TCPConn) {
	kind, peeked, err := forward.Peek(conn, forward.SniffTimeout)
	switch {
	case err != nil, len(peeked) == 0 && s.draining.Load():
		_ = conn.Close()
	case kind == forward.KindHTTP:
		s.sniffed.give(forward.NewPeekedConn(conn, peeked))
	default:
		s.conns.Go(func() { s.carry(conn, peeked) })
	}
}

func (s *server) carry(conn *net.TCPConn, peeked []byte) {
	if err := s.options.TCP.Serve(s.ctx, conn, peeked, s.route); err != nil {
		s.log.V(1).Info("connection ended", "error", err.Error())
	}
}

// ServeHTTP counts and answers one request.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	defer s.requests.Add(-1)
	release := s.route.Target().Begin()
	defer release()
	status := statusWriter{ResponseWriter: w}
	defer func() { s.route.Metrics.Answered(status.code) }()
	s.handler.ServeHTTP(&status, r)
}

// statusWriter remembers the status of an answer, and keeps net/http from guessing a content type that the app has not
// named.
type statusWriter struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter. An informational status is followed by another one, except for 101.
func (w *statusWriter) WriteHeader(code int) {
	if w.code < http.StatusOK && w.code != http.StatusSwitchingProtocols {
		w.code = code
	}
	if h := w.Header(); code >= http.StatusOK && len(h["Content-Type"]) == 0 {
		h["Content-Type"] = nil
	}
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// handover is a listener whose connections come from another one.
type handover struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give passes conn on, or closes it if nobody accepts any more.
func (h *handover) give(conn net.Conn) {
	select {
	case h.conns <- conn:
	case <-h.closed:
		_ = conn.Close()
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handover) Addr() net.Addr { return h.addr }
