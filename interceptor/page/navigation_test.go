// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"net/textproto"
	"strings"
	"testing"
)

// The header sets are those that the programs really send, reduced to what matters here.
func TestIsNavigation(t *testing.T) {
	const (
		chrome = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\n" +
			"Upgrade-Insecure-Requests: 1\n"
		firefox = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\nUpgrade-Insecure-Requests: 1\n"
		sec     = "Sec-Fetch-Site: none\nSec-Fetch-Mode: navigate\nSec-Fetch-User: ?1\nSec-Fetch-Dest: document\n"
	)
	for name, tc := range map[string]struct {
		method, header string
		body, upgrade  bool
		want           bool
	}{
		"Chrome":                  {header: chrome + sec, want: true},
		"Chrome to plain http":    {header: chrome, want: true},
		"Firefox":                 {header: firefox + sec, want: true},
		"Firefox to plain http":   {header: firefox, want: true},
		"a frame":                 {header: chrome + "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: iframe\n", want: true},
		"a reload":                {header: chrome + sec + "Cache-Control: max-age=0\n", want: true},
		"lynx":                    {header: "Accept: text/html, text/plain, text/sgml, */*;q=0.01\n", want: true},
		"XHTML alone":             {header: "Accept: Application/XHTML+XML\n", want: true},
		"a form":                  {method: "POST", header: chrome + sec, body: true},
		"HEAD":                    {method: "HEAD", header: chrome + sec},
		"a GET with a body":       {header: chrome, body: true},
		"fetch":                   {header: "Accept: */*\nSec-Fetch-Mode: cors\nSec-Fetch-Dest: empty\n"},
		"fetch to plain http":     {header: "Accept: */*\n"},
		"fetch that names HTML":   {header: "Accept: text/html\nSec-Fetch-Mode: same-origin\nSec-Fetch-Dest: empty\n"},
		"a navigation of a fetch": {header: "Accept: text/html\nSec-Fetch-Mode: navigate\nSec-Fetch-Dest: empty\n"},
		"XHR of jQuery":           {header: "Accept: text/html, */*; q=0.01\nX-Requested-With: XMLHttpRequest\n"},
		"htmx":                    {header: "Accept: text/html\nHX-Request: true\n"},
		"JSON":                    {header: "Accept: application/json, text/plain, */*\n"},
		"events":                  {header: "Accept: text/event-stream\nSec-Fetch-Mode: cors\nSec-Fetch-Dest: empty\n"},
		"an image": {
			header: "Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8\nSec-Fetch-Mode: no-cors\nSec-Fetch-Dest: image\n",
		},
		"an image to plain http":  {header: "Accept: image/avif,image/webp,*/*;q=0.5\n"},
		"a script":                {header: "Accept: */*\nSec-Fetch-Mode: no-cors\nSec-Fetch-Dest: script\n"},
		"a style":                 {header: "Accept: text/css,*/*;q=0.1\nSec-Fetch-Mode: no-cors\nSec-Fetch-Dest: style\n"},
		"an object":               {header: chrome + "Sec-Fetch-Mode: navigate\nSec-Fetch-Dest: object\n"},
		"a part of a video":       {header: chrome + sec + "Range: bytes=0-\n"},
		"a prefetch":              {header: chrome + sec + "Sec-Purpose: prefetch\n"},
		"a prerender":             {header: chrome + sec + "Sec-Purpose: prefetch;prerender\n"},
		"an older prefetch":       {header: chrome + "Purpose: prefetch\n"},
		"an older one of Firefox": {header: firefox + "X-Moz: prefetch\n"},
		"a WebSocket": {
			header: "Sec-Fetch-Mode: websocket\nSec-Fetch-Dest: empty\nConnection: Upgrade\nUpgrade: websocket\n", upgrade: true,
		},
		"an upgrade of a navigator": {header: chrome + sec, upgrade: true},
		"curl":                      {header: "Accept: */*\nUser-Agent: curl/8.5.0\n"},
		"a kubelet":                 {header: "Accept: */*\nUser-Agent: kube-probe/1.34\n"},
		"Prometheus": {
			header: "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1\n",
		},
		"Go":   {header: "User-Agent: Go-http-client/1.1\n"},
		"gRPC": {method: "POST", header: "Content-Type: application/grpc\nTe: trailers\n", body: true},
	} {
		header := textproto.MIMEHeader{}
		for line := range strings.Lines(tc.header) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			header.Add(key, value)
		}
		r := Request{Method: "GET", HasBody: tc.body, HasUpgrade: tc.upgrade, Value: header.Get}
		if tc.method != "" {
			r.Method = tc.method
		}
		if got := IsNavigation(r); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
