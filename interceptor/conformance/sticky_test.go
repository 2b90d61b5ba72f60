// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// sessionPod starts a pod at an address of its own. It keeps sessions in memory. /login opens a session. Other paths answer with the
// pod's name if the session is its own.
func sessionPod(t *testing.T, ip, attributes string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var sessions atomic.Int64
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch cookie, err := r.Cookie("sid"); {
		case r.URL.Path == "/login":
			w.Header().Add("Set-Cookie", "theme=dark; Path=/")
			w.Header().Add("Set-Cookie", fmt.Sprintf("sid=%s-%d%s", ip, sessions.Add(1), attributes))
		case r.URL.Path == "/ws":
			ws, err := websocket.Accept(w, r, nil)
			if err == nil {
				_ = ws.Write(r.Context(), websocket.MessageText, []byte(ip))
				_ = ws.Close(websocket.StatusNormalClosure, "")
			}
			return
		case r.URL.Path == "/any":
		case err != nil || !strings.HasPrefix(cookie.Value, ip+"-"):
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, ip)
	}), Protocols: new(http.Protocols)}}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return l.Addr().String()
}

// stickyWorld is two interceptors in front of three pods.
type stickyWorld struct {
	*testing.T
	nodes  []*node
	listen []int32
	pods   []string
	cookie string
}

func newStickyWorld(t *testing.T, cookie, attributes string) *stickyWorld {
	t.Helper()
	w := &stickyWorld{T: t, cookie: cookie}
	for i := range 3 {
		w.pods = append(w.pods, sessionPod(t, fmt.Sprintf("127.0.0.%d", i+2), attributes))
	}
	for _, name := range []string{"a", "b"} {
		w.nodes, w.listen = append(w.nodes, start(t, name, nil, nil)), append(w.listen, freePort(t))
	}
	w.set(w.pods...)
	for _, n := range w.nodes {
		n.synced()
		n.waitReady()
	}
	return w
}

func (w *stickyWorld) set(pods ...string) {
	for i, n := range w.nodes {
		s := unpublished(service(w.listen[i], api.ProtocolAuto, pods...))
		s.Routes.AffinityCookie = w.cookie
		n.set(s)
		n.applied()
	}
}

// visitor is a client that keeps cookies.
type visitor struct {
	*stickyWorld
	http *http.Client
	asks int
}

func (w *stickyWorld) visitor(protocol string) *visitor {
	w.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.Fatal(err)
	}
	transport := &http.Transport{Protocols: new(http.Protocols), DisableKeepAlives: protocol == "HTTP/1.1"}
	transport.Protocols.SetHTTP1(protocol == "HTTP/1.1")
	transport.Protocols.SetUnencryptedHTTP2(protocol != "HTTP/1.1")
	w.Cleanup(transport.CloseIdleConnections)
	return &visitor{stickyWorld: w, http: &http.Client{Transport: transport, Jar: jar, Timeout: within}}
}

// get asks the interceptors in turn, and returns the pod and the cookies that it sets.
func (v *visitor) get(path string) (status int, pod string, set []string) {
	v.Helper()
	v.asks++
	resp, err := v.http.Get(url(v.listen[v.asks%2], path))
	if err != nil {
		v.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header["Set-Cookie"]
}

// stays sends so many requests that, by chance alone, one would reach another pod.
func (v *visitor) stays(pod, path string) {
	v.Helper()
	for range 30 {
		status, got, set := v.get(path)
		if status != http.StatusOK || got != pod || len(set) > 0 {
			v.Fatalf("%d from %s, which sets %q; want 200 from %s, which sets nothing", status, got, set, pod)
		}
	}
}

// A client stays at the pod that holds its session, in both HTTP versions and at any interceptor.
func TestAffinityCookieOfTheApp(t *testing.T) {
	w := newStickyWorld(t, "sid", "; Path=/; HttpOnly; SameSite=Strict; Max-Age=600")
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		used := map[string]bool{}
		// Logins go to the pods at random: 60 of them miss one of three pods about once in 10^10 runs.
		for clients := 0; clients < 60 && (clients < 12 || len(used) < 3); clients++ {
			v := w.visitor(protocol)
			_, pod, set := v.get("/login")
			used[pod] = true
			if len(set) != 3 || !strings.HasPrefix(set[2], "scale-to-zero-") ||
				!strings.HasSuffix(set[2], "; Path=/; HttpOnly; SameSite=Strict; Max-Age=600") {
				t.Fatalf("by %s the login sets %q", protocol, set)
			}
			v.stays(pod, "/")
		}
		if len(used) != 3 {
			t.Errorf("by %s all clients are at %v", protocol, used)
		}
	}
}

// A WebSocket goes to the client's pod.
func TestAffinityCookieOfAWebSocket(t *testing.T) {
	w := newStickyWorld(t, "sid", "; Path=/")
	for range 8 {
		v := w.visitor("HTTP/1.1")
		_, pod, _ := v.get("/login")
		for i := range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			ws, _, err := websocket.Dial(ctx, url(w.listen[i%2], "/ws"), &websocket.DialOptions{HTTPClient: v.http})
			if err != nil {
				t.Fatal(err)
			}
			_, got, err := ws.Read(ctx)
			if err != nil || string(got) != pod {
				t.Errorf("the WebSocket is at %s, %v; the session at %s", got, err, pod)
			}
			_ = ws.CloseNow()
			cancel()
		}
	}
}

// A client without our cookie stays at one pod by its session cookie, and gets our cookie.
func TestAffinityCookieOfTheAppAlone(t *testing.T) {
	w := newStickyWorld(t, "sid", "; Path=/")
	for i := range 6 {
		pods := map[string]int{}
		for ask := range 20 {
			req, err := http.NewRequest(http.MethodGet, url(w.listen[ask%2], "/any"), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header["Cookie"] = []string{fmt.Sprintf("a=b; sid=session-%d", i)}
			resp, err := client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			pods[string(body)]++
			if set := resp.Header.Get("Set-Cookie"); !strings.HasPrefix(set, "scale-to-zero-") ||
				!strings.HasSuffix(set, "; Path=/; HttpOnly; SameSite=Lax") {
				t.Fatalf("the answer sets %q", set)
			}
		}
		if len(pods) != 1 {
			t.Errorf("a session is at %v", pods)
		}
	}
}

// A visitor without a session of the app may go anywhere.
func TestAffinityCookieWithoutSession(t *testing.T) {
	w := newStickyWorld(t, "sid", "")
	v := w.visitor("HTTP/1.1")
	pods := map[string]bool{}
	for range 30 {
		_, pod, set := v.get("/any")
		pods[pod] = true
		if len(set) > 0 {
			t.Fatalf("the answer sets %q", set)
		}
	}
	if len(pods) != 3 {
		t.Errorf("30 requests went to %v", pods)
	}
}

// If the app has no session cookie, our cookie alone keeps a client at its pod. When that pod leaves, the client gets another pod and
// a new cookie. When other pods join or leave, the client stays.
func TestAffinityCookieOfOurs(t *testing.T) {
	w := newStickyWorld(t, api.AffinityAuto, "")
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		v := w.visitor(protocol)
		_, pod, set := v.get("/any")
		if len(set) != 1 || !strings.HasSuffix(set[0], "; Path=/; HttpOnly; SameSite=Lax") || strings.Contains(set[0], "127") {
			t.Fatalf("the first answer sets %q", set)
		}
		v.stays(pod, "/any")
		var others, own []string
		for _, addr := range w.pods {
			if strings.HasPrefix(addr, pod+":") {
				own = append(own, addr)
			} else {
				others = append(others, addr)
			}
		}
		w.set(append(own, others[0])...)
		v.stays(pod, "/any")
		w.set(others...)
		_, next, again := v.get("/any")
		if next == pod || len(again) != 1 || again[0] == set[0] {
			t.Fatalf("at %s after %s has left, with %q", next, pod, again)
		}
		v.stays(next, "/any")
		w.set(w.pods...)
		v.stays(next, "/any")
	}
}

// If the proxy before us says that the visitor uses https, our cookie is for https only. Like the app's own session cookie, it may be
// sent from pages of other sites.
func TestAffinityCookieByHTTPS(t *testing.T) {
	w := newStickyWorld(t, api.AffinityAuto, "")
	c := connect(t, w.listen[0])
	for _, tc := range []struct{ fields, want string }{
		{"X-Forwarded-Proto: https\r\n", "; Path=/; HttpOnly; Secure; SameSite=None"},
		{"X-Forwarded-Proto: http\r\n", "; Path=/; HttpOnly; SameSite=Lax"},
	} {
		c.send("GET /any HTTP/1.1\r\nHost: h\r\n" + tc.fields + "\r\n")
		if got := c.answer().value("Set-Cookie"); !strings.HasSuffix(got, tc.want) {
			t.Errorf("%q sets %q", tc.fields, got)
		}
	}
}

// The app gets the cookies as they were sent, and a probe gets none.
func TestAffinityCookieChangesNoRequest(t *testing.T) {
	p := newWirePod(t, func(c *wireConn) {
		for {
			if _, err := c.request(); err != nil {
				return
			}
			c.send("HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	s := unpublished(service(listen, api.ProtocolAuto, p.addr))
	s.Routes.AffinityCookie = api.AffinityAuto
	n.set(s)
	n.synced()
	n.waitReady()
	c := connect(t, listen)
	c.send("GET / HTTP/1.1\r\nHost: h\r\ncookie:  a=b ;x; =; sid\r\nUser-Agent: kube-probe/1.37\r\n\r\n")
	if m := c.answer(); len(m.values("Set-Cookie")) > 0 {
		t.Errorf("a probe is told %q", m.lines)
	}
	c.send("GET / HTTP/1.1\r\nHost: h\r\nCookie: scale-to-zero-0=1; a=\"b\"\r\nCookie: c\r\n\r\n")
	if m := c.answer(); len(m.values("Set-Cookie")) != 1 {
		t.Errorf("a visitor is told %q", m.lines)
	}
	if got := p.received(); !strings.Contains(got, "cookie:  a=b ;x; =; sid\r\n") ||
		!strings.Contains(got, "Cookie: scale-to-zero-0=1; a=\"b\"\r\nCookie: c\r\n") {
		t.Errorf("the app got %q", got)
	}
}
