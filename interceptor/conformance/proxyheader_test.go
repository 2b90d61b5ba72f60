// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// proxied returns the listener of a pod that requires the PROXY header on each connection.
func proxied(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &proxyproto.Listener{
		Listener: l, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil },
	}
}

func withProxyHeader(s route.Service) route.Service {
	s.Routes.Ports[0].ProxyProtocol = true
	return unpublished(s)
}

func servingProxied(t *testing.T, protocol, pod string) (*node, int32) {
	t.Helper()
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	n.set(withProxyHeader(service(listen, protocol, pod)))
	n.synced()
	n.waitReady()
	return n, listen
}

// A header with the client's address comes before the bytes, whether the client or the server speaks first.
func TestProxyHeaderOfTCP(t *testing.T) {
	l := proxied(t)
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				_, _ = fmt.Fprintf(conn, "hello %s at %s\n", conn.RemoteAddr(), conn.LocalAddr())
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	_, listen := servingProxied(t, api.ProtocolTCP, l.Addr().String())
	for range 3 {
		c := connect(t, listen)
		c.reads(fmt.Sprintf("hello %s at 127.0.0.1:80\n", c.LocalAddr()))
		c.send("bytes")
		c.reads("bytes")
		_ = c.Close()
	}
}

// Each HTTP request, of either version, arrives with the address of its own client, although clients come and go.
func TestProxyHeaderOfHTTP(t *testing.T) {
	l := proxied(t)
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.RemoteAddr+" "+r.Header.Get("X-Forwarded-For"))
	}), Protocols: new(http.Protocols)}}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	n, listen := servingProxied(t, api.ProtocolAuto, l.Addr().String())
	for _, protocol := range []int{1, 2} {
		for range 3 {
			var local string
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetHTTP1(protocol == 1)
			transport.Protocols.SetUnencryptedHTTP2(protocol == 2)
			transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				if err == nil {
					local = conn.LocalAddr().String()
				}
				return conn, err
			}
			for range 3 {
				resp, err := (&http.Client{Transport: transport, Timeout: within}).Get(url(listen, "/"))
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if got := string(b); resp.StatusCode != 200 || got != local+" 127.0.0.1" {
					t.Errorf("by HTTP/%d %s is answered %d, %q", protocol, local, resp.StatusCode, got)
				}
			}
			transport.CloseIdleConnections()
		}
	}
	n.idle()
}

// The waiting page connects to find out whether the app listens. The header of that connection says that it has no client.
func TestProxyHeaderOfTheWaitingPage(t *testing.T) {
	headers := make(chan string, 10)
	p := newWirePod(t, func(c *wireConn) {
		h, err := proxyproto.Read(c.r)
		if err != nil {
			headers <- err.Error()
			return
		}
		headers <- fmt.Sprint(h.Command.IsLocal())
		c.drain()
	})
	_, listen := servingProxied(t, api.ProtocolHTTP, p.addr)
	c := connect(t, listen)
	c.send("GET / HTTP/1.1\r\nHost: h\r\nScale-To-Zero-Wait: starting,0\r\n\r\n")
	if m := c.answer(); m.status() != 200 || m.value("Scale-To-Zero") != "ready" {
		t.Errorf("%q %q", m.start, m.lines)
	}
	if got := <-headers; got != "true" {
		t.Errorf("local: %s", got)
	}
}

// Connections that were opened before the setting changed are not used afterwards.
func TestProxyHeaderChanges(t *testing.T) {
	var mu sync.Mutex
	var first []string
	p := newWirePod(t, func(c *wireConn) {
		b, err := c.r.Peek(1)
		if err != nil {
			return
		}
		mu.Lock()
		first = append(first, map[bool]string{true: "header", false: "request"}[b[0] == '\r'])
		mu.Unlock()
		if b[0] == '\r' {
			if _, err := proxyproto.Read(c.r); err != nil {
				return
			}
		}
		always(ok("ok"))(c)
	})
	n, listen := serving(t, api.ProtocolHTTP, p.addr)
	c := connect(t, listen)
	for _, on := range []bool{false, true, false, true} {
		s := unpublished(service(listen, api.ProtocolHTTP, p.addr))
		s.Routes.Ports[0].ProxyProtocol = on
		n.set(s)
		n.applied()
		for range 2 {
			c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			c.want(200, "ok")
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(first, " "); got != "request header header header header" && got != "request header header request header header" {
		t.Errorf("connections begin with %s", got)
	}
}
