// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// ask asks a pod that handles requests with h.
func ask(t *testing.T, h http.HandlerFunc, when string) result {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return newClient().askAll(t.Context(), asking(strings.TrimPrefix(s.URL, "http://"), when))
}

func asking(addr, when string) route.BusyCheck {
	return route.BusyCheck{
		Namespace: "ci", Service: "jenkins", Addrs: []string{addr},
		Busy: &api.Busy{Request: &api.BusyRequest{Method: "GET", Path: "/a%2fb?depth=1", Port: 80, When: when}},
	}
}

func TestRequest(t *testing.T) {
	got := make(chan string, 1)
	r := ask(t, func(w http.ResponseWriter, r *http.Request) {
		got <- fmt.Sprintf("%s %s %s %s %v close %t", r.Method, r.RequestURI, r.Host, r.Proto, r.Header, r.Close)
		w.Header()["X-Jobs"] = []string{"1", "2"}
		w.WriteHeader(http.StatusTeapot)
	}, `status == 418 && headers["x-jobs"] == "1, 2"`)
	if r.busy == "" || r.err != nil {
		t.Errorf("got %+v", r)
	}
	const want = "GET /a%2fb?depth=1 jenkins.ci HTTP/1.1 map[Accept:[*/*] Connection:[close] User-Agent:[scale-to-zero-busy/1.0]] close true"
	if got := <-got; got != want {
		t.Error(got)
	}
}

func TestPost(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Method+" "+r.Header.Get("Content-Length"))
	}))
	defer s.Close()
	check := asking(strings.TrimPrefix(s.URL, "http://"), `body == "POST 0" || body == "POST "`)
	check.Busy.Request.Method = "POST"
	if r := newClient().askAll(t.Context(), check); r.busy == "" || r.err != nil {
		t.Errorf("got %+v", r)
	}
}

// A redirect is an answer: nobody else is asked.
func TestRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	r := ask(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+"/login", http.StatusFound)
	},
		`status == 302 && headers.location.endsWith("/login")`)
	if r.busy == "" || r.err != nil {
		t.Errorf("got %+v", r)
	}
}

// A body that is too long is an error, unless only the status matters.
func TestHugeBody(t *testing.T) {
	const maxBody = 1 << 20
	huge := func(w http.ResponseWriter, _ *http.Request) {
		for range maxBody/1024 + 1 {
			if _, err := w.Write([]byte(strings.Repeat(" ", 1024))); err != nil {
				return
			}
		}
	}
	r := ask(t, huge, "json.a > 0")
	if r.busy != "" || r.err == nil || !strings.Contains(r.err.Error(), "the body of the answer is too long") {
		t.Errorf("got %+v", r)
	}
	if r := ask(t, huge, "status == 200"); r.busy == "" || r.err != nil {
		t.Errorf("got %+v", r)
	}
	most := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat(" ", maxBody-1)+"1")
	}
	if r := ask(t, most, "json == 1"); r.busy == "" || r.err != nil {
		t.Errorf("got %+v", r)
	}
}

// An answer that does not come, or does not end, is an error when the time is over.
func TestSlowAnswer(t *testing.T) {
	end := make(chan struct{})
	for name, h := range map[string]http.HandlerFunc{
		"no answer": func(http.ResponseWriter, *http.Request) { <-end },
		"no end": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "[")
			_ = http.NewResponseController(w).Flush()
			<-end
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(h)
			defer s.Close()
			defer func() { end <- struct{}{} }()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			r := newClient().askAll(ctx, asking(strings.TrimPrefix(s.URL, "http://"), "json.a > 0"))
			if r.busy != "" || r.err == nil || !strings.Contains(r.err.Error(), "no complete answer within 3s") {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestHugeHeader(t *testing.T) {
	r := ask(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("A", strings.Repeat("a", maxHeaders)) }, "status == 200")
	if r.busy != "" || r.err == nil {
		t.Errorf("got %+v", r)
	}
}

// A forged slice may hold an expression that does not compile.
func TestNoExpression(t *testing.T) {
	r := newClient().askAll(t.Context(), asking("192.0.2.1:80", "status"))
	if r.err == nil || r.err.Error() != "reading annotation scale-to-zero/busy-when: it has to be true or false, and it is of type int" {
		t.Errorf("got %+v", r)
	}
}

// Compiled expressions are kept, but not without bounds.
func TestConditions(t *testing.T) {
	c := newClient()
	first, err := c.condition("status > 0")
	if again, _ := c.condition("status > 0"); err != nil || again != first {
		t.Errorf("it was compiled again: %v", err)
	}
	for i := range maxConditions + 1 {
		if _, err := c.condition(fmt.Sprintf("status > %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.conditions); n > maxConditions {
		t.Errorf("%d are kept", n)
	}
}

// Where pods expect a PROXY protocol header, the connection begins with one that names no client.
func TestProxyHeader(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan *proxyproto.Header, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		reader := bufio.NewReader(conn)
		header, err := proxyproto.Read(reader)
		if err != nil {
			t.Error(err)
		}
		got <- header
		if _, err := http.ReadRequest(reader); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}()
	check := asking(l.Addr().String(), "status == 200")
	check.ProxyProtocol = true
	if r := newClient().askAll(t.Context(), check); r.busy == "" || r.err != nil {
		t.Errorf("got %+v", r)
	}
	if h := <-got; h == nil || h.Command != proxyproto.LOCAL {
		t.Errorf("got %+v", h)
	}
}
