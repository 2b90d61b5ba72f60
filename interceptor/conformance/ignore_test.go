// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// asleepText is the answer to a probe while the app sleeps.
const asleepText = "# scale-to-zero: Deployment/web is asleep; this request does not wake it.\n"

// probing is a kubelet's request.
const probing = "GET /healthz?full HTTP/1.1\r\nHost: h\r\nUser-Agent: kube-probe/1.34\r\n"

// ignoring returns a Service that ignores two paths.
func ignoring(listen int32, addrs ...string) route.Service {
	s := unpublished(service(listen, api.ProtocolAuto, addrs...))
	s.Routes.IgnorePaths = []string{"/ping", "/static/*"}
	return s
}

// ignores starts an interceptor for that Service.
func ignores(t *testing.T, addrs ...string) (*node, int32) {
	t.Helper()
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	n.set(ignoring(listen, addrs...))
	n.synced()
	n.waitReady()
	return n, listen
}

// ignored checks that n has answered that many ignored requests, and has counted none.
func (n *node) ignored(count int) {
	n.t.Helper()
	n.measures(fmt.Sprintf(`scale_to_zero_ignored_requests_total{namespace="shop",service="web"} %d`, count))
	n.measures(`scale_to_zero_requests_total{code="2xx",namespace="shop",service="web"} 0`)
	n.measures(`scale_to_zero_requests_total{code="none",namespace="shop",service="web"} 0`)
	n.measures(`scale_to_zero_held_seconds_count{namespace="shop",service="web"} 0`)
	n.idle()
	if len(n.events())+n.scales() > 0 {
		n.t.Errorf("it was woken: %v, %d times scaled", n.events(), n.scales())
	}
	i := n.seen()
	for _, target := range i.Targets() {
		if idle := target.Idle(); idle < time.Hour {
			n.t.Errorf("a request was seen %s ago", idle)
		}
	}
}

// While the app sleeps, an ignored request is answered at once, wakes nothing, and leaves the connection usable.
func TestIgnoredWhileAsleep(t *testing.T) {
	for name, tc := range map[string]struct {
		request string
		head    bool
		ends    bool
	}{
		"a kubelet": {request: probing + "\r\n"},
		"a scrape":  {request: "GET /metrics HTTP/1.1\r\nHost: h\r\nuser-agent: Prometheus/3.5.0\r\n\r\n"},
		"a monitor": {
			request: "GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)\r\n\r\n",
		},
		"HEAD":                 {request: "HEAD / HTTP/1.1\r\nHost: h\r\nUser-Agent: GoogleHC/1.0\r\n\r\n", head: true},
		"a path":               {request: "GET /ping HTTP/1.1\r\nHost: h\r\nUser-Agent: Mozilla/5.0\r\n\r\n"},
		"paths":                {request: "GET /static/app.js?v=1 HTTP/1.1\r\nHost: h\r\n\r\n"},
		"a whole URL":          {request: "GET http://h/ping HTTP/1.1\r\nHost: h\r\n\r\n"},
		"a body":               {request: "POST /ping HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"},
		"chunks":               {request: "POST /ping HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"a body still to come": {request: "POST /ping HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nhello", ends: true},
		"asking first":         {request: "PUT /ping HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", ends: true},
		"the last one":         {request: probing + "Connection: close\r\n\r\n", ends: true},
		"HTTP/1.0":             {request: "GET /ping HTTP/1.0\r\nUser-Agent: check_http/v2.4 (monitoring-plugins 2.4)\r\n\r\n", ends: true},
		"an upgrade":           {request: probing + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			n, listen := ignores(t)
			s := ignoring(listen)
			s.Routes.Ports[0].Protocol = api.ProtocolHTTP // so that a request that has arrived is read completely at once
			n.set(s)
			n.applied()
			c := connect(t, listen)
			rounds := 3
			if tc.ends {
				rounds = 1
			}
			for range rounds {
				c.send(tc.request)
				m := c.head()
				if !tc.head {
					if err := readBody(c.r, m, false); err != nil || m.body != asleepText {
						t.Fatalf("got %q, %v", m.body, err)
					}
				}
				if m.status() != 200 || m.value("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" ||
					m.value("Cache-Control") != "no-store" || m.value("Scale-To-Zero") != "asleep" ||
					m.value("Content-Length") != fmt.Sprint(len(asleepText)) || m.value("Scale-To-Zero-Held") != "" {
					t.Errorf("got %q with %q", m.start, m.lines)
				}
				if ends := m.value("Connection") == "close"; ends != tc.ends {
					t.Errorf("it ends: %t", ends)
				}
			}
			if tc.ends {
				c.ends()
				_ = c.Close()
			}
			n.ignored(rounds)
		})
	}
}

// Nor does it wake over HTTP/2, where gRPC's health check gets its own answer.
func TestIgnoredWhileAsleepByHTTP2(t *testing.T) {
	n, listen := ignores(t)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	ask := func(method string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url(listen, "/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("User-Agent", "ELB-HealthChecker/2.0")
		resp, err := (&http.Client{Transport: transport, Timeout: within}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.ProtoMajor != 2 || resp.StatusCode != 200 {
			t.Errorf("%s: got %d, %v", method, resp.StatusCode, err)
		}
		return resp, string(body)
	}
	for method, want := range map[string]string{http.MethodGet: asleepText, http.MethodHead: ""} {
		resp, body := ask(method)
		if body != want {
			t.Errorf("%s: got %q", method, body)
		}
		if h := resp.Header; h.Get("Scale-To-Zero") != "asleep" || h.Get("Cache-Control") != "no-store" ||
			!strings.Contains(h.Get("Content-Type"), "version=0.0.4") {
			t.Errorf("%s: got %v", method, h)
		}
	}
	n.ignored(2)
	// While the app is awake, these requests go to it, and still do not count.
	n.set(ignoring(listen, pod(t, hello)))
	n.applied()
	if resp, body := ask(http.MethodGet); body != "hello" || resp.Header.Get("Scale-To-Zero") != "" {
		t.Errorf("awake: got %q with %v", body, resp.Header)
	}
	n.ignored(3)
}

func TestIgnoredGRPC(t *testing.T) {
	n, listen := ignores(t)
	s := ignoring(listen)
	s.Routes.IgnorePaths = []string{"/test.Echo/*"}
	s.Routes.IgnoreAgents = []string{"grpc-go/"}
	n.set(s)
	n.applied()
	conn := grpcConn(t, listen)
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	health, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: "any"})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("the health check got %v, %v", health, err)
	}
	err = conn.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("hello"), new(wrapperspb.StringValue))
	if st := status.Convert(err); st.Code() != codes.Unavailable ||
		st.Message() != "scale-to-zero: Deployment/web is asleep; this request does not wake it." {
		t.Errorf("another call got %v", err)
	}
	n.ignored(2)
}

// While a pod is ready, ignored requests go to it like all others, but still do not count. An app that is probed all the time falls
// asleep, and a visitor wakes it.
func TestIgnoredWhileAwake(t *testing.T) {
	p := newWirePod(t, always(ok("the app's own")))
	n, listen := ignores(t, p.addr)
	s := ignoring(listen, p.addr)
	s.Routes.Cooldown = api.Duration(time.Second)
	n.set(s)
	n.applied()
	keda, asked := n.keda(), 0
	c := connect(t, listen)
	eventually(t, "inactive although it is asked all the time", func() bool {
		c.send(probing + "\r\n")
		m := c.want(200, "the app's own")
		if m.value("Scale-To-Zero") != "" {
			t.Errorf("got %q", m.lines)
		}
		asked++
		return !active(t, keda)
	})
	if got := pending(t, keda); got != 0 {
		t.Errorf("pending %d", got)
	}
	n.idle()
	n.measures(fmt.Sprintf(`scale_to_zero_ignored_requests_total{namespace="shop",service="web"} %d`, asked))
	s.Endpoints, s.Pods, s.SleepID = nil, 0, "s2"
	n.set(s)
	eventually(t, "asleep", func() bool {
		c.send(probing + "\r\n")
		return c.answer().value("Scale-To-Zero") == "asleep"
	})
	if active(t, keda) || len(n.events()) > 0 {
		t.Error("it is kept up")
	}

	visitor := connect(t, listen)
	visitor.send("GET /healthz HTTP/1.1\r\nHost: h\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\r\n")
	n.holds(1)
	eventually(t, "woken", func() bool { return len(n.events()) == 1 && active(t, keda) })
	c.send(probing + "\r\n") // this one is answered before the visitor
	c.want(200, asleepText)
	s.Pods = 1
	n.set(s)
	eventually(t, "starting", func() bool {
		c.send(probing + "\r\n")
		m := c.answer()
		return m.status() == 200 && m.value("Scale-To-Zero") == "starting" && m.body == strings.Replace(asleepText, "asleep", "starting", 1)
	})
	n.set(ignoring(listen, p.addr))
	visitor.want(200, "the app's own")
}

// Bytes of an upgraded connection do not count if its request did not.
func TestIgnoredWebSocket(t *testing.T) {
	n, listen := ignores(t, pod(t, echoWebSocket))
	conn, _, err := websocket.Dial(t.Context(), url(listen, "/static/ws"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	for range 3 {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := conn.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.CloseNow()
	n.ignored(1)
}

// An app that is up and broken does not sleep: those who monitor it have to see that.
func TestIgnoredWhileDown(t *testing.T) {
	const down = "scale-to-zero: no pod of Deployment/web (for service shop/web) is ready and answers.\n"
	t.Run("not ready for long", func(t *testing.T) {
		n, listen := ignores(t)
		s := ignoring(listen)
		s.Pods, s.Routes.HoldTimeout = 1, api.Duration(200*time.Millisecond)
		n.set(s)
		c := connect(t, listen)
		eventually(t, "down", func() bool {
			c.send(probing + "\r\n")
			m := c.answer()
			return m.status() == 503 && m.body == down && m.value("Scale-To-Zero") == ""
		})
		n.idle()
	})
	t.Run("refuses", func(t *testing.T) {
		n, listen := ignores(t, closedPort(t))
		c := connect(t, listen)
		c.send(probing + "\r\n")
		m := c.want(503, down)
		if m.value("Retry-After") == "" {
			t.Errorf("got %q", m.lines)
		}
		n.ignored(1)
	})
	// The pod that refuses has ended. Its slice says so a moment later.
	t.Run("falls asleep", func(t *testing.T) {
		n, listen := ignores(t, closedPort(t))
		c := connect(t, listen)
		c.send(probing + "\r\n")
		n.measures(`scale_to_zero_ignored_requests_total{namespace="shop",service="web"} 1`)
		n.set(ignoring(listen))
		c.want(200, asleepText)
		n.ignored(1)
	})
	t.Run("begins to listen", func(t *testing.T) {
		addr := closedPort(t)
		n, listen := ignores(t, addr)
		c := connect(t, listen)
		c.send(probing + "\r\n")
		n.measures(`scale_to_zero_ignored_requests_total{namespace="shop",service="web"} 1`)
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Skip(err) // somebody else uses the port now
		}
		s := &http.Server{Handler: http.HandlerFunc(hello), ReadHeaderTimeout: within}
		defer s.Close()
		go func() { _ = s.Serve(l) }()
		c.want(200, "hello")
		n.ignored(1)
	})
}

// TCP has no requests that could be ignored.
func TestNothingOfTCPIsIgnored(t *testing.T) {
	n, listen := ignores(t)
	s := ignoring(listen)
	s.Routes.Ports[0].Protocol = api.ProtocolTCP
	n.set(s)
	n.applied()
	c := connect(t, listen)
	c.send(probing + "\r\n")
	n.holds(1)
	eventually(t, "woken", func() bool { return len(n.events()) == 1 })
	_ = c.SetLinger(0)
	_ = c.Close()
	n.idle()
}
