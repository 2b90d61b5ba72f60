// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A program that passes on a browser's headers gets the app's own answer, and a browser at the same app gets the page.
func TestBrowsersHeadersSentOn(t *testing.T) {
	app := newWirePod(t, always(ok("fine"))).addr
	const browser = "GET /a HTTP/1.1\r\nHost: web.example.com\r\nX-Forwarded-For: 198.18.0.9\r\nAccept: text/html\r\nAccept-Language: ko\r\n"
	for name, tc := range map[string]struct {
		request, mode string
		page          bool
	}{
		"a browser": {browser + "\r\n", api.PageAuto, true},
		"auth_request": {
			"GET /auth HTTP/1.0\r\nHost: 10.96.0.7\r\nConnection: close\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: " +
				"document\r\n\r\n",
			api.PageAuto, false,
		},
		"ForwardAuth":         {browser + "X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /b\r\n\r\n", api.PageAuto, false},
		"ForwardAuth, always": {browser + "X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /b\r\n\r\n", api.PageAlways, false},
		"a backend for a frontend": {
			"GET / HTTP/1.1\r\nHost: web.shop.svc\r\nX-Forwarded-For: 198.18.0.9\r\nAccept: text/html\r\n\r\n", api.PageAuto, false,
		},
		"a proxy that passes all, always": {
			"GET / HTTP/1.1\r\nHost: web\r\nAccept: text/html\r\nAccept-Language: ko\r\n\r\n", api.PageAlways, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, s := waits(t, time.Millisecond)
			n.sets(&s, func() {
				s.Routes.WaitingPage = tc.mode
				s.Routes.Reach = &api.Reach{Hosts: []string{"web.example.com"}, Inside: []string{"10.96.0.7"}}
			})
			c := n.connects(s)
			c.send(tc.request)
			if tc.page {
				isPage(t, c.answer(), "starting")
				return
			}
			n.holds(1)
			n.sets(&s, func() { s.Endpoints = map[string][]string{"http": {app}} })
			c.want(200, "fine")
		})
	}
}
