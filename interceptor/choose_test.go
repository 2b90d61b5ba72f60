package interceptor

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

// A port that is said to speak HTTP may speak it over TLS, whatever its appProtocol means elsewhere. Its connections go
// on byte by byte.
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

// A route's protocol may change while it is served. The port stays open all the time, and connections that are there go
// on as they began.
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
		c := connect(t, listen) // never refused
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n") // so that a connection of the old protocol ends
		line, _ := c.r.ReadString('\n')
		return line == "220 hello\r\n"
	})
	n.set(unpublished(service(listen, api.ProtocolTCP, app.addr)))
	n.applied()
	old.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	old.want(200, "fine")
}
