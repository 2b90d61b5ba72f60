// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A port with an appProtocol for HTTP may speak HTTP over TLS, whatever the appProtocol means elsewhere. Its connections are carried
// byte by byte.
func TestTLSOnAnHTTPRoute(t *testing.T) {
	for _, protocol := range []string{api.ProtocolHTTP, api.ProtocolAuto, api.ProtocolTCP} {
		t.Run(protocol, func(t *testing.T) {
			app := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, r.Host)
			}))
			t.Cleanup(app.Close)
			n, listen := serving(t, protocol, app.Listener.Addr().String())
			pool := app.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
			c := &http.Client{Transport: &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "example.com"},
			}}
			resp, err := c.Get(strings.Replace(url(listen, "/"), "http:", "https:", 1))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if want := resp.Request.Host; err != nil || string(b) != want {
				t.Errorf("got %q, %v; want %q", b, err, want)
			}
			_ = resp.Body.Close()
			c.CloseIdleConnections()
			n.idle()
		})
	}
}

// A route's protocol may change while it is served. The port stays open all the time, and existing connections continue as they
// began.
func TestProtocolChanges(t *testing.T) {
	n, listen := serving(t, api.ProtocolHTTP)
	speaksFirst := rawPod(t, func(c net.Conn) {
		defer c.Close()
		_, _ = io.WriteString(c, "220 hello\r\n")
		_, _ = io.Copy(io.Discard, c)
	})
	app := newWirePod(t, always(ok("fine")))
	n.set(unpublished(service(listen, api.ProtocolHTTP, app.addr)))
	old := connect(t, listen)
	old.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	old.want(200, "fine")

	n.set(unpublished(service(listen, api.ProtocolTCP, speaksFirst)))
	eventually(t, "the server speaks first", func() bool {
		c := connect(t, listen) // it is never refused
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n") // so that a connection with the old protocol ends
		line, _ := c.r.ReadString('\n')
		return line == "220 hello\r\n"
	})
	n.set(unpublished(service(listen, api.ProtocolTCP, app.addr)))
	n.applied()
	old.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	old.want(200, "fine")
}

// What turns out to be HTTP only after its beginning has gone to the pod as bytes gets an error, and the pod sees no end: there
// are apps that take that for the end of the line.
func TestLateHTTP(t *testing.T) {
	for name, tc := range map[string]struct{ first, then string }{
		"the line goes on": {"\xa0GET /a HT", "TP/1.1\r\nHost: h\r\n\r\n"},
		"the client ends":  {"\xa0GET /a HTTP/1.1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			got, ended := make(chan string, 1), make(chan error, 1)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				defer conn.Close()
				b := make([]byte, len(tc.first))
				_, err = io.ReadFull(conn, b)
				if got <- string(b); err == nil {
					_, err = io.Copy(io.Discard, conn)
				}
				ended <- err
			}()
			_, listen := serving(t, api.ProtocolAuto, l.Addr().String())
			c := connect(t, listen)
			c.send(tc.first)
			if first := <-got; first != tc.first {
				t.Errorf("the pod got %q", first)
			}
			if tc.then == "" {
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			} else {
				c.send(tc.then)
			}
			if m := c.answer(); m.status() != http.StatusBadRequest {
				t.Errorf("got %q", m.start)
			}
			_ = c.Close()
			if err := <-ended; err == nil {
				t.Error("the pod saw an end in order")
			}
		})
	}
}

// On a port of protocol auto HTTP never goes past the rules, however it begins and however late.
func TestHTTPIsNeverBytes(t *testing.T) {
	const fields = "Host: h\r\nX-Forwarded-For: forged\r\nConnection: close\r\n\r\n"
	for name, tc := range map[string]struct {
		pieces []string
		late   bool // whether the first piece comes after the connection has been taken for silent
		want   string
	}{
		"empty line first":   {[]string{"\r\nGET / HTTP/1.1\r\n" + fields}, false, "HTTP/1.1 200 "},
		"empty LF first":     {[]string{"\nGET / HTTP/1.1\r\n" + fields}, false, "HTTP/1.1 200 "},
		"lower case":         {[]string{"get / HTTP/1.1\r\n" + fields}, false, "HTTP/1.1 200 "},
		"byte by byte":       {strings.Split("\r\nget / HTTP/1.1\r\n"+fields, ""), false, "HTTP/1.1 200 "},
		"CONNECT":            {[]string{"CONNECT h:80 HTTP/1.1\r\n" + fields}, false, "HTTP/1.1 501 "},
		"tabs":               {[]string{"get\t/\tHTTP/1.1\r\n" + fields}, false, "HTTP/1.1 400 "},
		"quoted method":      {[]string{"\"GET\" / HTTP/1.1\r\n" + fields}, false, "HTTP/1.1 400 "},
		"byte order mark":    {[]string{"\xef\xbb\xbfGET / HTTP/1.1\r\n" + fields}, false, "HTTP/1.1 400 "},
		"NUL first":          {[]string{"\x00GET / HTTP/1.1\r\n" + fields}, true, "HTTP/1.1 400 "},
		"five empty lines":   {[]string{strings.Repeat("\r\n", 5) + "GET / HTTP/1.1\r\n" + fields}, false, "HTTP/1.1 400 "},
		"after silence":      {[]string{"GET / HTTP/1.1\r\n" + fields}, true, "HTTP/1.1 200 "},
		"odd, after silence": {[]string{"\r\nget / HTTP/1.1\r\n" + fields}, true, "HTTP/1.1 200 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newWirePod(t, answering(func(m *message) string { return ok(m.value("X-Forwarded-For")) }))
			n, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			if tc.late {
				eventually(t, "taken for silent", func() bool { return len(p.accepted()) == 1 })
			}
			for _, piece := range tc.pieces {
				c.send(piece)
			}
			m := c.answer()
			if !strings.HasPrefix(m.start, tc.want) || m.status() == 200 && m.body != "forged, 127.0.0.1" {
				t.Errorf("got %q with %q", m.start, m.body)
			}
			n.idle()
		})
	}
}
