// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A route has no more connections than it may, whatever they speak, and leaves the other routes theirs.
func TestConnectionsOfARoute(t *testing.T) {
	n := start(t, "a", nil, func(o *interceptor.Options) { o.Limits.MaxConnections = 2 })
	app := newWirePod(t, always(ok("fine")))
	abused, other := freePort(t), freePort(t)
	s := unpublished(service(abused, api.ProtocolHTTP, app.addr))
	s.Routes.Ports = append(s.Routes.Ports, api.Port{Name: "other", Port: 81, Listen: other, Protocol: api.ProtocolTCP})
	s.Endpoints["other"] = []string{app.addr}
	n.set(s)
	n.synced()
	n.waitReady()
	asks := func(listen int32) (*wireClient, error) {
		c := connect(t, listen)
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
			return c, err
		}
		_, err := readHead(c.r)
		return c, err
	}
	var first *wireClient
	for i := range 2 {
		c, err := asks(abused)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		first = c
	}
	if _, err := asks(abused); err == nil || isTimeout(err) {
		t.Errorf("one too many: got %v", err)
	}
	if _, err := asks(other); err != nil {
		t.Errorf("the other route: %v", err)
	}
	_ = first.Close()
	eventually(t, "there is room again", func() bool {
		_, err := asks(abused)
		return err == nil
	})
}

// The same is true for connections that turn out to speak HTTP/2.
func TestHTTP2ConnectionsOfARoute(t *testing.T) {
	n := start(t, "a", nil, func(o *interceptor.Options) { o.Limits.MaxConnections = 2 })
	app := pod(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
	listen := freePort(t)
	n.set(unpublished(service(listen, api.ProtocolHTTP, app)))
	n.synced()
	n.waitReady()
	asks := func() (*http.Transport, error) {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
		t.Cleanup(transport.CloseIdleConnections)
		resp, err := (&http.Client{Transport: transport, Timeout: within}).Get(url(listen, "/"))
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		return transport, err
	}
	var first *http.Transport
	for i := range 2 {
		transport, err := asks()
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		first = transport
	}
	if _, err := asks(); err == nil || isTimeout(err) {
		t.Errorf("one too many: got %v", err)
	}
	first.CloseIdleConnections()
	eventually(t, "there is room again", func() bool {
		_, err := asks()
		return err == nil
	})
}

// All requests that were held while an app started reach it at once, without more new connections at a time than the app can accept.
// All are answered.
func TestManyHeldAreAllAnswered(t *testing.T) {
	n, listen := serving(t, api.ProtocolAuto)
	const count = 1500
	clients := make([]*wireClient, count)
	for i := range clients {
		clients[i] = connect(t, listen)
		clients[i].send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i))
	}
	n.holds(count)
	n.set(unpublished(service(listen, api.ProtocolAuto, newWirePod(t, echo()).addr)))
	for i, c := range clients {
		c.want(200, fmt.Sprintf("GET /%d ", i))
	}
	n.idle()
}
