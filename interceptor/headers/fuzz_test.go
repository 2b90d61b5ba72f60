// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import (
	"bufio"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// read returns the fields of a head, and its Host, as net/http parses them.
func read(t *testing.T, head string) (http.Header, string) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		t.Skip("net/http does not read it")
	}
	return r.Header, r.Host
}

// meaning returns the fields without those that only one HTTP version has.
func meaning(h http.Header) http.Header {
	h = maps.Clone(h)
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Connection", "Upgrade"} {
		delete(h, name)
	}
	return h
}

// FuzzVersionsAgree tests that requests with the same fields are passed on with the same meaning in both HTTP versions, and have the
// same visitor: the hop before ours in the result.
func FuzzVersionsAgree(f *testing.F) {
	f.Add("Host: h\r\nX-Forwarded-For: a, b\r\nX-Forwarded-For: c\r\n", 1)
	f.Add("Host: h\r\nX-Forwarded-For: a, ,\r\nX-Forwarded-Host: x\r\nX-Forwarded-Proto: https\r\n", AllHops)
	f.Add("Host: h\r\nX-Forwarded-For: ,\r\nX-Forwarded-For:\r\nX-Forwarded-For: a,\r\n", 2)
	f.Add("Host: h\r\nProxy-Authorization: x\r\nTE: gzip, trailers\r\nKeep-Alive: 5\r\nHTTP2-Settings: a\r\nUpgrade: b\r\n", 0)
	f.Add("Host: h\r\nCookie: a\r\nCookie: b\r\nVia: 1.1 x\r\nUser-Agent: u\r\nTrailer: x\r\nExpect: 100-continue\r\n", AllHops)
	f.Add("Host:\r\n", AllHops)
	f.Add("Host: h\r\nConnection: x-own, upgrade\r\nX-Own: 1\r\nUpgrade: websocket\r\n", AllHops)
	f.Fuzz(func(t *testing.T, fields string, hops int) {
		if hops < AllHops || hops > 10 {
			return
		}
		head := "GET / HTTP/1.1\r\n" + fields + "\r\n"
		var r http1.Request
		if n, err := r.Parse([]byte(head)); err != nil || n != len(head) || r.Minor != 1 {
			return
		}
		w := Way{Remote: "192.0.2.1", Trusted: hops}
		by1, host1 := read(t, string(AppendRequest(nil, &r, []byte(head), w, "other")))

		in, host := read(t, head)
		// An HTTP/2 client sends no fields about a connection, so Connection names none of its fields.
		for _, named := range nominated(&r, head) {
			if ofRequest(http1.NameOf(named)) == nominable {
				in.Del(named)
			}
		}
		by2 := Request(in, host, w)
		if host1 != host {
			t.Errorf("the Host %q became %q", host, host1)
		}
		if diff := cmp.Diff(meaning(by2), meaning(by1)); diff != "" {
			t.Errorf("by HTTP/2 (-) and by HTTP/1.1 (+) of %q:\n%s", head, diff)
		}

		visitor1, visitor2 := w.Visitor(w.Named(&r, []byte(head))), w.Visitor(w.NamedHTTP2(in))
		if want := hopBeforeOurs(by1.Get("X-Forwarded-For")); visitor1 != want || visitor2 != want {
			t.Errorf("the visitor is %q by HTTP/1.1 and %q by HTTP/2, and goes on as %q", visitor1, visitor2, want)
		}
	})
}

func nominated(r *http1.Request, head string) (names []string) {
	r.Tokens([]byte(head), http1.Connection, func(token []byte) bool {
		names = append(names, string(token))
		return true
	})
	return names
}

// hopBeforeOurs returns the last entry of X-Forwarded-For before ours that is not empty, or ours.
func hopBeforeOurs(list string) string {
	entries := strings.Split(list, ",")
	ours := strings.TrimSpace(entries[len(entries)-1])
	for _, hop := range slices.Backward(entries[:len(entries)-1]) {
		if hop = strings.TrimSpace(hop); hop != "" {
			return hop
		}
	}
	return ours
}
