// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// gate makes a pod's requests wait for the test.
type gate struct {
	arrived chan struct{} // gets one element for each request
	open    chan struct{} // is closed to let the requests be answered
	once    sync.Once
	gone    atomic.Int64 // requests whose client went earlier
}

func newGate() *gate { return &gate{arrived: make(chan struct{}, 10_000), open: make(chan struct{})} }

// openGate returns a gate that lets everything through.
func openGate() *gate {
	g := newGate()
	g.release()
	return g
}

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

func (g *gate) pass(ctx context.Context) {
	g.arrived <- struct{}{}
	select {
	case <-g.open:
	case <-ctx.Done():
		g.gone.Add(1)
	}
}

// speaker is a protocol, with a pod and a client that speak it.
type speaker struct {
	route string // the route's protocol
	pod   func(*testing.T, *gate) string
	// open returns a client that has at most connected.
	open func(t *testing.T, listen int32) session
	// lasting is set if a session goes on until somebody ends it: each turn is a message and its echo. Otherwise each turn is a request
	// and its answer.
	lasting bool
}

// session is a client at work.
type session interface {
	turn() error
	// leave ends the session from the client's side, even during a turn.
	leave()
}

func speakers() map[string]speaker {
	raw := func(bytes string) func(*testing.T, int32) session {
		return func(t *testing.T, listen int32) session {
			t.Helper()
			return &rawSession{connect(t, listen), bytes}
		}
	}
	echo := func(first string) func(*testing.T, *gate) string {
		return func(t *testing.T, _ *gate) string {
			t.Helper()
			return rawPod(t, func(c net.Conn) { echoBehind(c, first) })
		}
	}
	return map[string]speaker{
		"HTTP/1.1 GET":      {api.ProtocolAuto, webPod, raw("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), false},
		"HTTP/1.1 POST":     {api.ProtocolAuto, webPod, raw(post("Content-Length: 5\r\n", "hello")), false},
		"HTTP/1.1 chunked":  {api.ProtocolAuto, webPod, raw(post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")), false},
		"h2c GET":           {api.ProtocolAuto, webPod, openH2C, false},
		"gRPC unary":        {api.ProtocolAuto, grpcPod, openGRPC("Unary"), false},
		"gRPC bidi":         {api.ProtocolAuto, grpcPod, openGRPC("Bidi"), true},
		"WebSocket":         {api.ProtocolAuto, webPod, openWebSocket, true},
		"SSE":               {api.ProtocolAuto, webPod, openEvents, true},
		"TLS":               {api.ProtocolAuto, tlsPod, openTLS, true},
		"TCP":               {api.ProtocolAuto, echo(""), openTCP("\x00hello", ""), true},
		"TCP, server first": {api.ProtocolTCP, echo("220 welcome\r\n"), openTCP("hello", "220 welcome\r\n"), true},
	}
}

func webPod(t *testing.T, g *gate) string {
	t.Helper()
	addr := pod(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // before that, net/http does not notice that its client goes
		g.pass(r.Context())
		switch r.URL.Path {
		case "/ws":
			echoWebSocket(w, r)
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, "data: x\n\n")
				_ = http.NewResponseController(w).Flush()
				<-tick.C
			}
		default:
			_, _ = io.WriteString(w, "fine")
		}
	})
	t.Cleanup(g.release) // otherwise closing the pod would wait
	return addr
}

// rawSession sends the same request again and again.
type rawSession struct {
	*wireClient
	request string
}

func (s *rawSession) turn() error {
	if _, err := io.WriteString(s, s.request); err != nil {
		return err
	}
	m, err := readHead(s.r)
	if err != nil {
		return err
	}
	if err := readBody(s.r, m, true); err != nil {
		return err
	}
	if m.status() != 200 || m.body != "fine" {
		return fmt.Errorf("got %q with %q", m.start, m.body)
	}
	return nil
}

func (s *rawSession) leave() { _ = s.Close() }

// funcSession is a session made of two functions.
type funcSession struct {
	again func() error
	end   func()
}

func (s *funcSession) turn() error { return s.again() }
func (s *funcSession) leave()      { s.end() }

func h2cTransport(t *testing.T) *http.Transport {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func openH2C(t *testing.T, listen int32) session {
	t.Helper()
	client := &http.Client{Transport: h2cTransport(t), Timeout: within}
	ctx, cancel := context.WithCancel(t.Context())
	return &funcSession{end: cancel, again: func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url(listen, "/"), nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || string(b) != "fine" {
			return fmt.Errorf("got %d with %q, %w", resp.StatusCode, b, err)
		}
		return nil
	}}
}

func openEvents(t *testing.T, listen int32) session {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var lines *bufio.Scanner
	return &funcSession{end: cancel, again: func() error {
		if lines == nil {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url(listen, "/events"), nil)
			if err != nil {
				return err
			}
			resp, err := client().Do(req)
			if err != nil {
				return err
			}
			lines = bufio.NewScanner(resp.Body)
		}
		if !lines.Scan() {
			return fmt.Errorf("reading an event: %w", errors.Join(lines.Err(), io.EOF))
		}
		if got := lines.Text(); got != "" && got != "data: x" {
			return fmt.Errorf("got %q", got)
		}
		return nil
	}}
}

func openWebSocket(t *testing.T, listen int32) session {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var conn atomic.Pointer[websocket.Conn]
	leave := func() {
		cancel()
		if c := conn.Load(); c != nil {
			_ = c.CloseNow()
		}
	}
	return &funcSession{end: leave, again: func() error {
		if conn.Load() == nil {
			c, _, err := websocket.Dial(ctx, url(listen, "/ws"), nil)
			if err != nil {
				return err
			}
			conn.Store(c)
		}
		c := conn.Load()
		if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			return err
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != "hello" {
			return fmt.Errorf("got %q, %w", got, err)
		}
		return nil
	}}
}

func echoBehind(c net.Conn, first string) {
	defer c.Close()
	_, _ = io.WriteString(c, first)
	_, _ = io.Copy(c, c)
}

func tlsPod(t *testing.T, _ *gate) string {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	certs := s.TLS.Certificates
	s.Close()
	return rawPod(t, func(c net.Conn) { echoBehind(tls.Server(c, &tls.Config{Certificates: certs}), "") })
}

// reset ends a connection of plain bytes with a reset. A regular close would only say that the client has sent everything.
func reset(conn *net.TCPConn) { _, _ = conn.SetLinger(0), conn.Close() }

func openTCP(send, first string) func(*testing.T, int32) session {
	return func(t *testing.T, listen int32) session {
		t.Helper()
		conn := dial(t, listen)
		return &funcSession{end: func() { reset(conn) }, again: echoTurn(conn, send, first)}
	}
}

func openTLS(t *testing.T, listen int32) session {
	t.Helper()
	conn := dial(t, listen)
	return &funcSession{
		end:   func() { reset(conn) },
		again: echoTurn(tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), "hello", ""),
	}
}

// echoTurn sends something and waits for its echo. The first time, the server's unsolicited words come before the echo.
func echoTurn(conn net.Conn, send, first string) func() error {
	return func() error {
		want := first + send
		first = ""
		if _, err := io.WriteString(conn, send); err != nil {
			return err
		}
		b := make([]byte, len(want))
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != want {
			return fmt.Errorf("got %q, %w", b, err)
		}
		return nil
	}
}

// echoService is a gRPC service with all four kinds of calls, without generated code.
func echoService(g *gate) *grpc.ServiceDesc {
	stream := func(f func(grpc.ServerStream) error) grpc.StreamHandler {
		return func(_ any, s grpc.ServerStream) error {
			g.pass(s.Context())
			return f(s)
		}
	}
	return &grpc.ServiceDesc{
		ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, decode func(any) error,
			_ grpc.UnaryServerInterceptor,
		) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			if g.pass(ctx); ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return unaryEcho(ctx, in)
		}}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Bidi", ServerStreams: true, ClientStreams: true, Handler: stream(bidiEcho)},
			{StreamName: "Server", ServerStreams: true, Handler: stream(serverEcho)},
			{StreamName: "Client", ClientStreams: true, Handler: stream(clientEcho)},
		},
	}
}

func grpcPod(t *testing.T, g *gate) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.MaxConcurrentStreams(100_000))
	s.RegisterService(echoService(g), nil)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func grpcConn(t *testing.T, listen int32) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", listen), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func openGRPC(method string) func(*testing.T, int32) session {
	return func(t *testing.T, listen int32) session {
		t.Helper()
		conn := grpcConn(t, listen)
		ctx, cancel := context.WithTimeout(t.Context(), within)
		t.Cleanup(cancel)
		var stream grpc.ClientStream
		return &funcSession{end: cancel, again: func() (err error) {
			in, out := wrapperspb.String("hello"), new(wrapperspb.StringValue)
			if method == "Unary" {
				err = conn.Invoke(ctx, "/test.Echo/Unary", in, out)
			} else {
				if stream == nil {
					stream, err = conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Echo/"+method)
				}
				if err == nil {
					err = errors.Join(stream.SendMsg(in), stream.RecvMsg(out))
				}
			}
			if err != nil || out.GetValue() != "hello" {
				return fmt.Errorf("got %q, %w", out.GetValue(), err)
			}
			return nil
		}}
	}
}
