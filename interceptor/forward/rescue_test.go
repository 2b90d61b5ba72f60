// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// logged collects log lines.
type logged struct {
	mu  sync.Mutex
	all []string
}

func (l *logged) logger() logr.Logger {
	return funcr.New(func(_, line string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, line)
	}, funcr.Options{})
}

// one checks that there is exactly one line, about that fault, and clears the log.
func (l *logged) one(t *testing.T, fault string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) != 1 || !strings.Contains(l.all[0], "please report it") || !strings.Contains(l.all[0], fault) {
		t.Errorf("logged %q, want one line about %q", l.all, fault)
	}
	l.all = nil
}

// A fault while serving one connection ends only that connection, and leaves nothing behind.
func TestRescueConnection(t *testing.T) {
	for name, tc := range map[string]struct{ pod, request string }{
		"a request": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", get},
		"one with a body to come": {
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nand so",
		},
		"an upgraded connection": {
			"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			pods := listen(t)
			go func() {
				for {
					conn, err := pods.AcceptTCP()
					if err != nil {
						return
					}
					go func() {
						defer conn.Close()
						b := make([]byte, wire.LargeBuffer)
						if n, _ := conn.Read(b); n > 0 {
							_, _ = conn.Write([]byte(tc.pod))
						}
						for err := error(nil); err == nil; _, err = conn.Read(b) {
						}
					}()
				}
			}()
			r := newRig(t, Options{Log: log.logger()}, pods.Addr().String())
			other := r.dial()
			other.send("GET /")
			r.only()
			r.answered.fault.Store(true)
			c := r.dial()
			c.send("%s", tc.request)
			if got := c.ends(); strings.Contains(got, "200") {
				t.Errorf("there is no fault: the client got %q", got)
			}
			eventually(t, "the connection is forgotten", func() bool { return r.connections() == 1 })
			log.one(t, "a fault of the test")
			pod := r.route.TryPick(&route.Visit{})
			pod.Done()
			unused(t, r.route, pod)
			r.answered.fault.Store(false)
			other.send(" HTTP/1.1\r\nHost: h\r\n\r\n")
			other.reads(tc.pod[:len("HTTP/1.1 ")])
		})
	}
}

// unused checks that no request is counted any more, and that no pod is in use.
func unused(t *testing.T, r *route.Route, pod *route.Endpoint) {
	t.Helper()
	if n := r.Target().Pending(); n != 0 {
		t.Errorf("%d requests are still pending", n)
	}
	if !panics(pod.Done) {
		t.Error("the pod is still in use")
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// A fault on the way to a pod leaves no use of the pod behind, wherever it occurs.
func TestRescuePod(t *testing.T) {
	for name, fault := range map[string]func(*rig, *route.Endpoint){
		"where a wait is over": func(r *rig, pod *route.Endpoint) {
			pod.Fail()
			r.answered.heldFault.Store(true)
			_, _ = r.route.Pick(context.Background(), &route.Visit{})
		},
		"connecting for TCP": func(r *rig, pod *route.Endpoint) {
			pod.Pool = nil
			l := listen(r.tb)
			dial(r.tb, l.Addr().String())
			theirs, err := l.AcceptTCP()
			if err != nil {
				r.tb.Fatal(err)
			}
			_ = r.server.serveBytes(theirs, []byte("x"))
		},
		"sending by HTTP/2": func(r *rig, _ *route.Endpoint) {
			whole := r.http2
			defer func() { r.http2 = whole }()
			r.http2 = nil // without a transport
			newStream(r.server, httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)).attend()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{}, listen(t).Addr().String())
			pod := r.route.TryPick(&route.Visit{})
			pod.Done()
			if !panics(func() { fault(r, pod) }) {
				t.Error("there is no fault")
			}
			unused(t, r.route, pod)
		})
	}
}

// The client does not take the part of the answer that it got for the whole answer.
func TestRescueCutsTheAnswer(t *testing.T) {
	c, theirs := newConn(t, still())
	func() {
		defer c.rescue()
		_, _ = c.client.Write([]byte("HTTP/1.1 200 OK\r\n\r\nhalf of"))
		panic("a fault of the test")
	}()
	if b, err := io.ReadAll(theirs); err == nil {
		t.Errorf("got %q and its end", b)
	}
}

// If a fault ends an upload, it ends the request.
func TestRescueUpload(t *testing.T) {
	var log logged
	e := newEngine(t, Options{Log: log.logger()})
	up, err := e.NewPool(listen(t).Addr().String()).(*pool).dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{server: newServer(t, e, &route.Route{})} // without a client
	c.now = request1{conn: c, body: wire.Body{Left: 1}}
	u := &upload{x: &c.now, up: up, done: make(chan struct{}), err: errRescued}
	u.running.Store(true)
	u.run()
	<-u.done
	if !errors.Is(u.err, errRescued) || u.running.Load() {
		t.Errorf("it ended with %v, running is %v", u.err, u.running.Load())
	}
	if _, err := up.Write([]byte("x")); err == nil {
		t.Error("the connection to the pod is open")
	}
	log.one(t, "nil pointer")
}

// A fault in an HTTP/2 stream resets the stream, and is logged visibly. An intended reset is not logged.
func TestRescueStream(t *testing.T) {
	var log logged
	e := newEngine(t, Options{Log: log.logger()})
	aborts := func(h http.Handler) {
		t.Helper()
		defer func() {
			if err, ok := recover().(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				t.Errorf("got panic %v", err)
			}
		}()
		e.http2.server(t.Context(), h).Handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}
	aborts(http.HandlerFunc((&Server{engine: e}).serveStream)) // without a route
	log.one(t, "nil pointer")
	aborts(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}))
	if len(log.all) > 0 {
		t.Errorf("logged %q", log.all)
	}
}
