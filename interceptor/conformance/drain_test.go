// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// This tests the order of the shutdown. Readiness fails first. New connections are served until no slice lists this interceptor. Then
// running and held requests, upgraded and TCP connections end by themselves. KEDA's stream ends last.
func TestDrainOrder(t *testing.T) {
	release := make(chan struct{})
	addr := pod(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			_ = http.NewResponseController(w).Flush()
			<-release
			_, _ = io.WriteString(w, "slow")
		case "/chat":
			echoWebSocket(w, r)
		default:
			hello(w, r)
		}
	})
	n := start(t, "a", nil, func(o *interceptor.Options) { o.DrainTimeout = 2 * within })
	web, tcp := freePort(t), freePort(t)
	published := service(web, api.ProtocolAuto, addr)
	n.set(published)
	bytes := service(tcp, api.ProtocolTCP, rawPod(t, func(c net.Conn) { defer c.Close(); _, _ = io.Copy(c, c) }))
	bytes.Name = "bytes"
	n.set(unpublished(bytes))
	n.synced()
	n.waitReady()

	stream, err := n.keda().StreamIsActive(t.Context(), scaledObject())
	if err != nil {
		t.Fatal(err)
	}
	slow, err := client().Get(url(web, "/slow"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Body.Close()
	chat, _, err := websocket.Dial(t.Context(), url(web, "/chat"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = chat.CloseNow() }()
	conn := dial(t, tcp)
	echoes := func(text string) {
		t.Helper()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, len(text))
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != text {
			t.Fatalf("got %q, %v", buf, err)
		}
		if err := chat.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := chat.Read(t.Context()); err != nil || string(got) != text {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	echoes("before")
	keepAlive := dial(t, web)
	answers := bufio.NewReader(keepAlive)
	ask := func() *http.Response {
		t.Helper()
		_, _ = io.WriteString(keepAlive, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp
	}
	ask()

	n.stop()
	eventually(t, "unready", func() bool { return n.status("/readyz") == http.StatusServiceUnavailable })
	if code, _ := get(t, url(web, "/")); code != http.StatusOK {
		t.Errorf("a new connection got %d while still published", code)
	}
	n.set(unpublished(published))
	if _, err := answers.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection got %v, want its end", err)
	}
	if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", web)); err == nil {
		_ = c.Close()
		t.Error("it is open to new connections")
	}
	echoes("during")
	close(release)
	if b, err := io.ReadAll(slow.Body); err != nil || string(b) != "slow" {
		t.Errorf("the running request got %q, %v", b, err)
	}
	select {
	case err := <-n.done:
		t.Fatalf("stopped with connections open: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if _, err := n.keda().IsActive(t.Context(), scaledObject()); err != nil {
		t.Errorf("KEDA got %v while connections were open", err)
	}
	if err := chat.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	_ = conn.CloseWrite()
	for err = error(nil); err == nil; {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("KEDA's stream ended with %v, want io.EOF", err)
	}
}

// As long as new connections arrive, somebody does not know yet that this interceptor shuts down, so they are served.
func TestDrainAwaitsQuiet(t *testing.T) {
	const linger = 300 * time.Millisecond
	n := start(t, "a", nil, func(o *interceptor.Options) { o.DrainTimeout, o.UnpublishedLinger = 2*within, linger })
	web := freePort(t)
	n.set(unpublished(service(web, api.ProtocolAuto, pod(t, hello))))
	n.synced()
	n.waitReady()
	n.stop()
	eventually(t, "unready", func() bool { return n.status("/readyz") == http.StatusServiceUnavailable })
	for began := time.Now(); time.Since(began) < 5*linger; {
		if code, _ := get(t, url(web, "/")); code != http.StatusOK {
			t.Fatalf("a connection got %d %s after the end had begun", code, time.Since(began))
		}
	}
	select {
	case err := <-n.done:
		n.done <- err
	case <-time.After(within / 2):
		t.Error("it does not end although no connection comes any more")
	}
}

// What does not end by itself is cut after the drain timeout, and not earlier.
func TestDrainTimeoutCuts(t *testing.T) {
	n := start(t, "a", nil, func(o *interceptor.Options) { o.DrainTimeout = 500 * time.Millisecond })
	listen := freePort(t)
	n.set(service(listen, api.ProtocolAuto, pod(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/chat") {
			echoWebSocket(w, r)
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})))
	n.synced()
	n.waitReady()
	chat, _, err := websocket.Dial(t.Context(), url(listen, "/chat"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = chat.CloseNow() }()
	resp, err := client().Get(url(listen, "/forever"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	began := time.Now()
	n.stop()
	if _, _, err := chat.Read(t.Context()); err == nil {
		t.Error("read something")
	}
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("cut after %s already", took)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the endless answer ended as if it were whole")
	}
}

// A removed route is served a little longer with its former pods, and then closed. The interceptor continues.
func TestRemovedRouteLingers(t *testing.T) {
	n := start(t, "a", nil, func(o *interceptor.Options) { o.Linger = 300 * time.Millisecond })
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, hello))))
	n.synced()
	n.waitReady()
	n.services <- func(s interceptor.Sink) { s.RemoveService("shop", "web") }
	done := make(chan struct{})
	n.services <- func(interceptor.Sink) { close(done) }
	<-done
	if code, body := get(t, url(listen, "/")); code != http.StatusOK || body != "hello" {
		t.Errorf("got %d %q while lingering", code, body)
	}
	eventually(t, "closed", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", listen))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, hello))))
	eventually(t, "open again", func() bool {
		resp, err := client().Get(url(listen, "/"))
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// A port that somebody else uses makes only its own route unavailable, until the port is free.
func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := int32(taken.Addr().(*net.TCPAddr).Port)
	n := start(t, "a", nil, nil)
	other := service(freePort(t), api.ProtocolAuto, pod(t, hello))
	other.Name = "other"
	n.set(unpublished(service(port, api.ProtocolAuto, pod(t, hello))))
	n.set(unpublished(other))
	n.synced()
	n.waitReady()
	if code, _ := get(t, url(other.Routes.Ports[0].Listen, "/")); code != http.StatusOK {
		t.Errorf("the other route got %d", code)
	}
	_ = taken.Close()
	eventually(t, "opened", func() bool {
		resp, err := client().Get(url(port, "/"))
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// HTTP/2 connections without requests do not delay the shutdown.
func TestDrainClosesIdleH2C(t *testing.T) {
	n := start(t, "a", nil, func(o *interceptor.Options) { o.DrainTimeout = within })
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, hello))))
	n.synced()
	n.waitReady()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: within}).Get(url(listen, "/"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	began := time.Now()
	n.shutdown()
	if took := time.Since(began); took > within/2 {
		t.Errorf("took %s", took)
	}
}

// When the last connection is closed, the kernel may still have bytes to send. These are lost with the pod's network, and the client
// would wait for them for ever. So an interceptor stays until clients have received everything.
func TestDrainWaitsForSlowReaders(t *testing.T) {
	const size = 64 << 10
	n := start(t, "a", nil, func(o *interceptor.Options) { o.DrainTimeout = 2 * within })
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolAuto, pod(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = w.Write(make([]byte, size))
	}))))
	n.synced()
	n.waitReady()
	conn := dial(t, listen)
	_ = conn.SetReadBuffer(4 << 10)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	n.stop()
	select {
	case err := <-n.done:
		n.done <- err
		t.Error("it ended before its client had read the answer")
	case <-time.After(500 * time.Millisecond):
	}
	if got, err := io.Copy(io.Discard, resp.Body); err != nil || got != size {
		t.Errorf("%d bytes came of %d: %v", got, size, err)
	}
	n.shutdown()
}
