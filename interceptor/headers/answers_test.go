// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

func TestAppendAnswer(t *testing.T) {
	for name, tc := range map[string]struct {
		fields   Answer
		in, want []string
		same     bool
	}{
		"same": {
			Answer{},
			[]string{"HTTP/1.1 200 OK", "a:b", "Content-Length: 3", "Set-Cookie: x", "Set-Cookie: y", "Host: z", "X-Forwarded-For: w"},
			[]string{"HTTP/1.1 200 OK", "a:b", "Content-Length: 3", "Set-Cookie: x", "Set-Cookie: y", "Host: z", "X-Forwarded-For: w"},
			true,
		},
		"no fields": {Answer{}, []string{"HTTP/1.1 204 No Content"}, []string{"HTTP/1.1 204 No Content"}, true},
		"a line more": {
			Answer{Add: "Connection: close\r\n"},
			[]string{"HTTP/1.1 200 OK", "A: b"},
			[]string{"HTTP/1.1 200 OK", "A: b", "Connection: close"},
			false,
		},
		"fields of one connection": {
			Answer{},
			[]string{
				"HTTP/1.1 200 OK", "Connection: keep-alive, x-own", "Keep-Alive: timeout=5", "X-Own: 1", "Content-Length: 0",
				"Proxy-Connection: close", "Upgrade: h2c", "Proxy-Authenticate: Basic", "Date: d",
			},
			[]string{"HTTP/1.1 200 OK", "Content-Length: 0", "Date: d"},
			false,
		},
		"nominated but needed": {
			Answer{},
			[]string{"HTTP/1.1 200 OK", "Connection: content-length, close", "Content-Length: 3"},
			[]string{"HTTP/1.1 200 OK", "Content-Length: 3"},
			false,
		},
		"coding nominated": {
			Answer{},
			[]string{"HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: a", "Connection: transfer-encoding, trailer"},
			[]string{"HTTP/1.1 200 OK", "Transfer-Encoding: chunked"},
			false,
		},
		"length beside chunks": {
			Answer{},
			[]string{"HTTP/1.1 200 OK", "Content-Length: 3", "Transfer-Encoding: chunked", "Trailer: a", "Content-Length: 3"},
			[]string{"HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: a"},
			false,
		},
		"chunks taken out": {
			Answer{Plain: true},
			[]string{"HTTP/1.1 200 OK", "Content-Length: 3", "Transfer-Encoding: chunked", "A: b"},
			[]string{"HTTP/1.1 200 OK", "A: b"},
			false,
		},
		"switching": {
			Answer{Upgrade: true},
			[]string{"HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "A: b"},
			[]string{"HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "A: b"},
			true,
		},
		"last field removed": {
			Answer{}, []string{"HTTP/1.1 200 OK", "A: b", "Keep-Alive: 5"}, []string{"HTTP/1.1 200 OK", "A: b"}, false,
		},
		"only field removed": {Answer{}, []string{"HTTP/1.1 200 OK", "Connection: close"}, []string{"HTTP/1.1 200 OK"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			head := lines(tc.in...)
			got, same := AppendAnswer([]byte("before|"), parseResponse(t, head), []byte(head), tc.fields)
			if diff := cmp.Diff("before|"+lines(tc.want...), string(got)); diff != "" || same != tc.same {
				t.Errorf("same %v; %s", same, diff)
			}
		})
	}
}

func TestSwitches(t *testing.T) {
	const asks = "Connection: upgrade"
	for name, tc := range map[string]struct {
		asked    []string
		answered string
		want     bool
	}{
		"what was asked for":      {[]string{"Upgrade: websocket", asks}, "Upgrade: websocket", true},
		"by another case":         {[]string{"Upgrade: WebSocket", asks}, "Upgrade: websockeT", true},
		"one of several":          {[]string{"Upgrade: a/1, websocket", asks}, "Upgrade: websocket", true},
		"something else":          {[]string{"Upgrade: websocket", asks}, "Upgrade: ssh", false},
		"something else first":    {[]string{"Upgrade: websocket", asks}, "Upgrade: ssh, websocket", false},
		"another version":         {[]string{"Upgrade: a/1", asks}, "Upgrade: a/2", false},
		"nothing":                 {[]string{"Upgrade: websocket", asks}, "A: b", false},
		"an empty name":           {[]string{"Upgrade: websocket", asks}, "Upgrade: ,", false},
		"nothing was asked for":   {[]string{"A: b"}, "Upgrade: websocket", false},
		"Upgrade alone was asked": {[]string{"Upgrade: websocket"}, "Upgrade: websocket", false},
		"HTTP/2 was asked for":    {[]string{"Upgrade: h2c", asks}, "Upgrade: h2c", false},
		"HTTP/2 beside it":        {[]string{"Upgrade: h2c, websocket", asks}, "Upgrade: websocket", true},
		"HTTP/2 of those":         {[]string{"Upgrade: h2c, websocket", asks}, "Upgrade: H2C", false},
		"in the first field":      {[]string{"Upgrade: websocket", asks, "Upgrade: a/1"}, "Upgrade: websocket", true},
		"in another field":        {[]string{"Upgrade: a/1", asks, "upgrade: b, websocket"}, "Upgrade: websocket", true},
		"behind an empty field":   {[]string{"Upgrade:", asks, "Upgrade: websocket"}, "Upgrade: websocket", true},
		"in no field":             {[]string{"Upgrade: a/1", asks, "Upgrade: b"}, "Upgrade: websocket", false},
		"HTTP/2 in another field": {[]string{"Upgrade: h2c", asks, "Upgrade: websocket"}, "Upgrade: websocket", true},
		"HTTP/2 of those fields":  {[]string{"Upgrade: h2c", asks, "Upgrade: websocket"}, "Upgrade: h2c", false},
		"an answer of two fields": {[]string{"Upgrade: b", asks, "Upgrade: websocket"}, "Upgrade:\r\nUpgrade: websocket", true},
	} {
		t.Run(name, func(t *testing.T) {
			asked := lines(append([]string{"GET / HTTP/1.1", "Host: h"}, tc.asked...)...)
			answered := lines("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", tc.answered)
			got := Switches(parseRequest(t, asked), []byte(asked), parseResponse(t, answered), []byte(answered))
			if got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// An answer that demands an upgrade keeps the field that says which.
func TestUpgradeRequired(t *testing.T) {
	head := "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0\r\nConnection: upgrade\r\nX: 1\r\n\r\n"
	var r http1.Response
	if _, err := r.Parse([]byte(head)); err != nil {
		t.Fatal(err)
	}
	got, _ := AppendAnswer(nil, &r, []byte(head), Answer{})
	if want := "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0\r\nX: 1\r\nConnection: Upgrade\r\n\r\n"; string(got) != want {
		t.Errorf("got %q", got)
	}
}
