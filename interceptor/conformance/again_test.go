// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// An idempotent request that kills its app is sent to one more pod, and not to a third. That holds for both HTTP versions, with and
// without a body, and on new and used connections.
func TestRequestThatKillsItsApp(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "PURGE"} {
		for _, body := range []string{"", "hello"} {
			for how, reset := range map[string]bool{"closes": false, "resets": true} {
				for state, kept := range map[string]bool{"new": false, "kept": true} {
					want := 1
					if strings.Contains("GET HEAD OPTIONS PUT DELETE", method) {
						want = 2
					}
					name := strings.Join([]string{method, body, how, state}, "/")
					t.Run("HTTP1/"+name, func(t *testing.T) { killOverHTTP1(t, method, body, reset, kept, want) })
					t.Run("HTTP2/"+name, func(t *testing.T) { killOverHTTP2(t, method, body, reset, kept, want) })
				}
			}
		}
	}
}

// replicas is how many pods a deadly request may choose from.
const replicas = 5

func killOverHTTP1(t *testing.T, method, body string, reset, kept bool, want int) {
	t.Helper()
	t.Parallel()
	var pods []*wirePod
	var addrs []string
	for range replicas {
		p := newWirePod(t, func(c *wireConn) {
			for {
				switch m, err := c.request(); {
				case err != nil:
					return
				case m.path() == "/ok":
					c.send(ok("fine"))
					continue
				case reset:
					_ = c.SetLinger(0)
				}
				return
			}
		})
		pods, addrs = append(pods, p), append(addrs, p.addr)
	}
	n, listen := serving(t, api.ProtocolHTTP, addrs...)
	c := connect(t, listen)
	if kept {
		for range 2 * replicas {
			c.send("GET /ok HTTP/1.1\r\nHost: h\r\n\r\n")
			c.want(200, "fine")
		}
	}
	c.send(method + " /kill HTTP/1.1\r\nHost: h\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
	if m := c.head(); m.status() != http.StatusBadGateway {
		t.Errorf("got %q", m.start)
	}
	got := 0
	for _, p := range pods {
		for _, m := range p.requests() {
			if m.path() == "/kill" {
				got++
			}
		}
	}
	// After a reset on a used connection, nobody knows whether the request has reached the app.
	if got != want && (!reset || !kept || got != 2) {
		t.Errorf("it was sent %d times, want %d", got, want)
	}
	n.idle()
}

func killOverHTTP2(t *testing.T, method, body string, reset, kept bool, want int) {
	t.Helper()
	t.Parallel()
	var pods []*framePod
	var addrs []string
	for range replicas {
		p := newFramePod(t, func(c *frameConn, stream uint32) {
			if c.paths[stream] == "/ok" {
				c.head(stream, true, ":status", "204")
				return
			}
			if reset {
				_ = c.SetLinger(0)
			}
			_ = c.Close()
		})
		pods, addrs = append(pods, p), append(addrs, p.addr)
	}
	n, listen := serving(t, api.ProtocolHTTP, addrs...)
	if kept {
		for range 2 * replicas {
			askHTTP2(t, listen, "GET", "/ok", "", http.StatusNoContent)
		}
	}
	askHTTP2(t, listen, method, "/kill", body, http.StatusBadGateway)
	got := 0
	for _, p := range pods {
		got += p.times("/kill")
	}
	if got != want {
		t.Errorf("it was sent %d times, want %d", got, want)
	}
	n.idle()
}

func askHTTP2(t *testing.T, listen int32, method, path, body string, want int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url(listen, path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: h2cTransport(t), Timeout: within}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		t.Errorf("%s got %s, want %d", path, resp.Status, want)
	}
}

// If a pod breaks off, an idempotent request is answered by another pod, and its body is sent again.
func TestIdempotentRequestsAreSentAgain(t *testing.T) {
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		for name, body := range map[string]string{"no body": "", "a body": "hello", "16 KiB": strings.Repeat("0123456789abcdef", 1<<10)} {
			t.Run(method+"/"+name, func(t *testing.T) {
				t.Parallel()
				dies := newFramePod(t, func(c *frameConn, _ uint32) { _ = c.Close() })
				answers := pod(t, func(w http.ResponseWriter, r *http.Request) {
					if got, err := io.ReadAll(r.Body); string(got) != body || err != nil {
						t.Errorf("got %d bytes, %v", len(got), err)
					}
					w.WriteHeader(http.StatusNoContent)
				})
				n, listen := serving(t, api.ProtocolHTTP, dies.addr, answers)
				for dies.times("/") == 0 { // either pod may be asked first
					askHTTP2(t, listen, method, "/", body, http.StatusNoContent)
				}
				n.idle()
			})
		}
	}
}

// A stream that the pod refuses may be sent once more. After that the client gets an error.
func TestRefusedStreams(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeRefusedStream, http2.ErrCodeProtocol} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			p := newFramePod(t, func(c *frameConn, stream uint32) { _ = c.WriteRSTStream(stream, code) })
			n, listen := serving(t, api.ProtocolHTTP, p.addr)
			askHTTP2(t, listen, "GET", "/refused", "", http.StatusBadGateway)
			if got := p.times("/refused"); got != 2 {
				t.Errorf("it was sent %d times", got)
			}
			n.idle()
		})
	}
}
