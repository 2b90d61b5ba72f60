// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// awake starts an interceptor in front of a pod and returns its port.
func awake(t *testing.T, h http.HandlerFunc) int32 {
	t.Helper()
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, h))))
	n.synced()
	n.waitReady()
	return listen
}

func TestRequestArrivesAsItWasSent(t *testing.T) {
	listen := awake(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s|%s|%s|%q|%q|%q|%q|%q", r.Method, r.RequestURI, r.Host, r.Header["User-Agent"],
			r.Header["X-Forwarded-For"], r.Header["X-Forwarded-Proto"], r.Header["X-Forwarded-Host"], r.Header["Accept-Encoding"])
	})
	for name, tc := range map[string]struct{ request, want string }{
		"plain": {
			"GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\n\r\n",
			`GET|/a?b=c|shop.example|[]|["127.0.0.1"]|["http"]|["shop.example"]|[]`,
		},
		"behind an ingress": {
			"GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: x\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n" +
				"X-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\nAccept-Encoding: br\r\n\r\n",
			`GET|/|h|["x"]|["192.0.2.1, 192.0.2.2, 127.0.0.1"]|["https"]|["outer"]|["br"]`,
		},
		"raw path and query": {
			"GET /a%2Fb/../c//d;e/%7e'\"?x;y&z=%zz?? HTTP/1.1\r\nHost: h\r\n\r\n",
			`GET|/a%2Fb/../c//d;e/%7e'"?x;y&z=%zz??|h|[]|["127.0.0.1"]|["http"]|["h"]|[]`,
		},
		"two slashes": {
			"GET //a/b HTTP/1.1\r\nHost: h\r\n\r\n",
			`GET|//a/b|h|[]|["127.0.0.1"]|["http"]|["h"]|[]`,
		},
		"empty query": {
			"GET /? HTTP/1.1\r\nHost: h\r\n\r\n",
			`GET|/?|h|[]|["127.0.0.1"]|["http"]|["h"]|[]`,
		},
		"asterisk": {
			"OPTIONS * HTTP/1.1\r\nHost: h\r\nX: 1\r\n\r\n",
			``, // net/http's server answers this by itself
		},
		"own method": {
			"PROPFIND /dav HTTP/1.1\r\nHost: h:8080\r\n\r\n",
			`PROPFIND|/dav|h:8080|[]|["127.0.0.1"]|["http"]|["h:8080"]|[]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, listen)
			if _, err := io.WriteString(conn, tc.request); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if b, _ := io.ReadAll(resp.Body); string(b) != tc.want {
				t.Errorf("\n got %s\nwant %s", b, tc.want)
			}
		})
	}
}

func dial(tb testing.TB, listen int32) *net.TCPConn {
	tb.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(listen))))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(within))
	return conn.(*net.TCPConn)
}

// Answers stream: each event arrives before the next one is written.
func TestServerSentEvents(t *testing.T) {
	next := make(chan struct{})
	listen := awake(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	resp, err := client().Get(url(listen, "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		lines.Scan()
		if want := fmt.Sprintf("data: %d", i); lines.Text() != want {
			t.Errorf("got %q, want %q", lines.Text(), want)
		}
		lines.Scan()
		next <- struct{}{}
	}
}

func TestTrailersAndInformationalAnswers(t *testing.T) {
	listen := awake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "Sum")
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "body")
		w.Header().Set("Sum", "42")
		w.Header().Set(http.TrailerPrefix+"Echo", r.Trailer.Get("Up"))
	})
	hints := ""
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints += fmt.Sprint(code, h.Get("Link"))
		return nil
	}}
	body := io.MultiReader(strings.NewReader("up"))
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodPost, url(listen, "/"), body)
	if err != nil {
		t.Fatal(err)
	}
	req.Trailer = http.Header{"Up": {"7"}}
	resp, err := client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.Trailer.Get("Sum") != "42" || resp.Trailer.Get("Echo") != "7" {
		t.Errorf("got trailers %v", resp.Trailer)
	}
	if hints != "103</a>; rel=preload" {
		t.Errorf("got informational %q", hints)
	}
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	for {
		kind, b, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if conn.Write(r.Context(), kind, b) != nil {
			return
		}
	}
}

func TestWebSocket(t *testing.T) {
	listen := awake(t, echoWebSocket)
	conn, resp, err := websocket.Dial(t.Context(), url(listen, "/chat"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("status %d", resp.StatusCode)
	}
	for _, want := range []string{"one", "two"} {
		if err := conn.Write(t.Context(), websocket.MessageText, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := conn.Read(t.Context()); err != nil || string(got) != want {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

// Cleartext HTTP/2 reaches the pod as HTTP/2. It streams in both directions, and includes trailers.
func TestH2C(t *testing.T) {
	listen := awake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		fmt.Fprintf(w, "%d ", r.ProtoMajor)
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		buf := make([]byte, 16)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	})
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	up, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url(listen, "/pkg.Service/Method"), up)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := (&http.Client{Transport: transport, Timeout: within}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	read := func(want string) {
		t.Helper()
		buf := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != want {
			t.Fatalf("got %q, %v; want %q", buf, err, want)
		}
	}
	read("2 ")
	for _, message := range []string{"ping", "pong"} {
		if _, err := io.WriteString(send, message); err != nil {
			t.Fatal(err)
		}
		read(message)
	}
	_ = send.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("rest %q, %v, trailers %v", rest, err, resp.Trailer)
	}
}

// A body that arrived while the workload slept reaches the pod completely, and is not read earlier.
func TestHeldBodyArrivesWhole(t *testing.T) {
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto)))
	n.synced()
	n.waitReady()
	body := bytes.Repeat([]byte("0123456789abcdef"), 10<<20/16)
	sum := sha256.Sum256(body)
	got := make(chan string, 1)
	go func() {
		resp, err := client().Post(url(listen, "/upload"), "application/octet-stream", bytes.NewReader(body))
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	eventually(t, "woken", func() bool { return len(n.events()) == 1 })
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		_, _ = io.Copy(h, r.Body)
		_, _ = io.WriteString(w, hex.EncodeToString(h.Sum(nil)))
	}))))
	if g := <-got; g != hex.EncodeToString(sum[:]) {
		t.Errorf("got %s", g)
	}
}

// rawPod starts a pod that calls f for each connection.
func rawPod(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f(conn)
		}
	}()
	return l.Addr().String()
}

// closedPort returns an address that refuses connections.
func closedPort(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", freePort(t))
}

func TestPodsThatBreak(t *testing.T) {
	breaksOff := func(t *testing.T) string {
		t.Helper()
		return rawPod(t, func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_ = c.Close()
		})
	}
	for name, tc := range map[string]struct {
		bad    func(*testing.T) string
		method string
		alone  bool
		want   int
	}{
		"GET, one refuses":              {closedPort, http.MethodGet, false, http.StatusOK},
		"POST, one refuses":             {closedPort, http.MethodPost, false, http.StatusOK},
		"GET, one breaks off":           {breaksOff, http.MethodGet, false, http.StatusOK},
		"POST, the only one breaks off": {breaksOff, http.MethodPost, true, http.StatusBadGateway},
		"GET, the only one breaks off":  {breaksOff, http.MethodGet, true, http.StatusBadGateway},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, "a", nil, nil)
			listen := freePort(t)
			addrs := []string{tc.bad(t)}
			if !tc.alone {
				addrs = append(addrs, pod(t, func(w http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					_, _ = w.Write(b)
				}))
			}
			n.set(unpublished(service(listen, api.ProtocolAuto, addrs...)))
			n.synced()
			n.waitReady()
			for range 10 {
				var body io.Reader
				if tc.method == http.MethodPost {
					body = strings.NewReader("payload")
				}
				req, err := http.NewRequestWithContext(t.Context(), tc.method, url(listen, "/"), body)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != tc.want || tc.want == http.StatusOK && body != nil && string(b) != "payload" {
					t.Errorf("got %d %q", resp.StatusCode, b)
				}
			}
		})
	}
}

// At first nothing listens, although the pod counts as ready, as is usual without a readiness probe.
func TestHeldUntilThePodListens(t *testing.T) {
	n := start(t, "a", nil, nil)
	listen, addr := freePort(t), closedPort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto, addr)))
	n.synced()
	n.waitReady()
	got := make(chan string, 1)
	go func() {
		resp, err := client().Post(url(listen, "/"), "text/plain", strings.NewReader("payload"))
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	n.measures(`scale_to_zero_held_requests{namespace="shop",workload="Deployment/web"} 1`)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	if g := <-got; g != "payload" {
		t.Errorf("got %q", g)
	}
}

func TestTCP(t *testing.T) {
	// It answers when the client has closed its side. This shows that the end of one side is passed on by itself.
	reverse := func(c net.Conn) {
		defer c.Close()
		b, _ := io.ReadAll(c)
		_, _ = c.Write(append([]byte("got "), b...))
	}
	banner := func(c net.Conn) {
		defer c.Close()
		_, _ = io.WriteString(c, "220 welcome\r\n")
		_, _ = io.Copy(io.Discard, c)
	}
	for name, tc := range map[string]struct {
		protocol string
		pod      func(net.Conn)
		send     string
		want     string
		asleep   bool
	}{
		"tcp":                        {api.ProtocolTCP, reverse, "some bytes", "got some bytes", false},
		"tcp that looks like http":   {api.ProtocolTCP, reverse, "GET / HTTP/1.1\r\n\r\n", "got GET / HTTP/1.1\r\n\r\n", false},
		"auto, TLS":                  {api.ProtocolAuto, reverse, "\x16\x03\x01\x02\x00\x01", "got \x16\x03\x01\x02\x00\x01", false},
		"auto, short":                {api.ProtocolAuto, reverse, "GE", "got GE", false},
		"tcp, server speaks first":   {api.ProtocolTCP, banner, "", "220 welcome\r\n", false},
		"auto, server speaks first":  {api.ProtocolAuto, banner, "", "220 welcome\r\n", false},
		"tcp, asleep":                {api.ProtocolTCP, reverse, "early bytes", "got early bytes", true},
		"auto, asleep":               {api.ProtocolAuto, reverse, "\x16\x03\x01early", "got \x16\x03\x01early", true},
		"tcp, asleep, server speaks": {api.ProtocolTCP, banner, "", "220 welcome\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, "a", nil, nil)
			listen := freePort(t)
			addr := rawPod(t, tc.pod)
			if tc.asleep {
				n.set(unpublished(service(listen, tc.protocol)))
			} else {
				n.set(unpublished(service(listen, tc.protocol, addr)))
			}
			n.synced()
			n.waitReady()
			conn := dial(t, listen)
			if tc.send != "" {
				_, _ = io.WriteString(conn, tc.send)
				_ = conn.CloseWrite()
			}
			if tc.asleep {
				eventually(t, "woken", func() bool { return len(n.events()) == 1 })
				n.set(unpublished(service(listen, tc.protocol, addr)))
			}
			buf := make([]byte, len(tc.want))
			if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != tc.want {
				t.Errorf("got %q, %v; want %q", buf, err, tc.want)
			}
			if tc.send == "" {
				_ = conn.CloseWrite()
			}
			if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
				t.Errorf("then %q, %v", rest, err)
			}
		})
	}
}

// The injector connects to every route before it publishes it. That must not wake a sleeping workload.
func TestProbesDoNotWake(t *testing.T) {
	for _, protocol := range []string{api.ProtocolAuto, api.ProtocolHTTP, api.ProtocolTCP} {
		t.Run(protocol, func(t *testing.T) {
			n := start(t, "a", nil, nil)
			listen := freePort(t)
			n.set(unpublished(service(listen, protocol)))
			n.synced()
			n.waitReady()
			for range 5 {
				_ = dial(t, listen).Close()
			}
			n.stop()
			if err := <-n.done; err != nil {
				t.Error(err)
			}
			n.done <- nil
			if len(n.events()) > 0 || n.scales() > 0 {
				t.Error("a probe woke the workload")
			}
		})
	}
}

// A held client that goes away frees its place, with HTTP and with TCP.
func TestClientGoesAwayWhileHeld(t *testing.T) {
	for name, tc := range map[string]struct{ protocol, send string }{
		"http": {api.ProtocolAuto, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"},
		"tcp":  {api.ProtocolTCP, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t, "a", nil, nil)
			listen := freePort(t)
			n.set(unpublished(service(listen, tc.protocol)))
			n.synced()
			n.waitReady()
			conn := dial(t, listen)
			_, _ = io.WriteString(conn, tc.send)
			n.measures(`scale_to_zero_pending_requests{namespace="shop",workload="Deployment/web"} 1`)
			_ = conn.Close()
			n.measures(`scale_to_zero_pending_requests{namespace="shop",workload="Deployment/web"} 0`)
		})
	}
}

func TestHoldTimeout(t *testing.T) {
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	s := unpublished(service(listen, api.ProtocolAuto))
	s.Routes.HoldTimeout = api.Duration(200 * time.Millisecond)
	n.set(s)
	n.synced()
	n.waitReady()
	code, body := get(t, url(listen, "/"))
	if code != http.StatusGatewayTimeout || !strings.Contains(body, "shop/web") || !strings.Contains(body, "Deployment/web") ||
		!strings.Contains(body, "200ms") {
		t.Errorf("got %d %q", code, body)
	}
}

// A client that asks before it sends its body may continue once a pod reads the body, and not earlier.
func TestExpectContinueWhileHeld(t *testing.T) {
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto)))
	n.synced()
	n.waitReady()
	conn := dial(t, listen)
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	eventually(t, "woken", func() bool { return len(n.events()) == 1 })
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if got, err := conn.Read(make([]byte, 1)); err == nil {
		t.Fatalf("read %d bytes before there is a pod", got)
	}
	_ = conn.SetReadDeadline(time.Now().Add(within))
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))))
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	_, _ = r.ReadString('\n')
	_, _ = io.WriteString(conn, "body")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "body" {
		t.Errorf("got %q", b)
	}
}

// This tests a pod that is gone while a connection to it is kept open.
func TestDeadPodWhileKeptAlive(t *testing.T) {
	dead := httptest.NewServer(http.HandlerFunc(hello))
	addr := strings.TrimPrefix(dead.URL, "http://")
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto, addr)))
	n.synced()
	n.waitReady()
	get(t, url(listen, "/"))
	dead.CloseClientConnections()
	dead.Close()
	got := make(chan int, 1)
	go func() {
		resp, err := client().Get(url(listen, "/"))
		if err != nil {
			got <- 0
			return
		}
		_ = resp.Body.Close()
		got <- resp.StatusCode
	}()
	n.measures(`scale_to_zero_held_requests{namespace="shop",workload="Deployment/web"} 1`)
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, hello))))
	if code := <-got; code != http.StatusOK {
		t.Errorf("got %d", code)
	}
}

// With HTTP/2 too, a request that could not be sent is held, and goes to the next pod.
func TestH2CDeadPod(t *testing.T) {
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto, closedPort(t))))
	n.synced()
	n.waitReady()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	got := make(chan string, 1)
	go func() {
		resp, err := (&http.Client{Transport: transport, Timeout: within}).Post(url(listen, "/"), "application/grpc",
			strings.NewReader("payload"))
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got <- fmt.Sprint(resp.StatusCode, " ", string(b))
	}()
	n.measures(`scale_to_zero_held_requests{namespace="shop",workload="Deployment/web"} 1`)
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))))
	if g := <-got; g != "200 payload" {
		t.Errorf("got %s", g)
	}
}

// Nothing is added to the app's answer.
func TestAnswerIsNotEmbellished(t *testing.T) {
	listen := awake(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "<html>")
	})
	resp, err := client().Get(url(listen, "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, ok := resp.Header["Content-Type"]; ok {
		t.Errorf("content type %q", got)
	}
}

// A TCP connection keeps its workload awake by its bytes, and not by being open.
func TestIdleTCPConnectionLetsTheAppSleep(t *testing.T) {
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	s := unpublished(service(listen, api.ProtocolTCP, rawPod(t, func(c net.Conn) { defer c.Close(); _, _ = io.Copy(c, c) })))
	s.Routes.Cooldown = api.Duration(100 * time.Millisecond)
	n.set(s)
	n.synced()
	n.waitReady()
	keda := n.keda()
	conn := dial(t, listen)
	for range 2 {
		eventually(t, "active by bytes", func() bool {
			_, _ = io.WriteString(conn, "x")
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			return active(t, keda)
		})
		eventually(t, "inactive although open", func() bool { return !active(t, keda) })
	}
}

// The same is true for an upgraded connection, which is no longer a request.
func TestIdleWebSocketLetsTheAppSleep(t *testing.T) {
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	s := unpublished(service(listen, api.ProtocolAuto, pod(t, echoWebSocket)))
	s.Routes.Cooldown = api.Duration(100 * time.Millisecond)
	n.set(s)
	n.synced()
	n.waitReady()
	keda := n.keda()
	conn, _, err := websocket.Dial(t.Context(), url(listen, "/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	for range 2 {
		eventually(t, "active by messages", func() bool {
			if err := conn.Write(t.Context(), websocket.MessageText, []byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := conn.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
			return active(t, keda)
		})
		eventually(t, "inactive although open", func() bool { return !active(t, keda) })
	}
	if got := pending(t, keda); got != 0 {
		t.Errorf("pending %d", got)
	}
}
