// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"net/textproto"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// asked returns a GET with these header lines, as the programs send them.
func asked(host, target, header string) Request {
	fields := textproto.MIMEHeader{}
	for line := range strings.Lines(header) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		fields.Add(key, value)
	}
	return Request{Method: "GET", Host: host, Target: target, Value: fields.Get}
}

func TestIsSubrequest(t *testing.T) {
	for name, tc := range map[string]struct {
		target, header string
		want           bool
	}{
		"ingress-nginx": {
			"/auth",
			"X-Original-Url: https://app.example.com/a?b\nX-Original-Method: GET\nX-Auth-Request-Redirect: /a?b\nX-Sent-From: " +
				"nginx-ingress-controller\n",
			true,
		},
		"Traefik": {
			"/verify", "X-Forwarded-Method: GET\nX-Forwarded-Uri: /a?b\nX-Forwarded-Host: app.example.com\n", true,
		},
		"Traefik, the same path": {"/", "X-Forwarded-Method: GET\nX-Forwarded-Uri: /\n", true},
		"Caddy":                  {"/api/authz/forward-auth", "X-Forwarded-Method: GET\nX-Forwarded-Uri: /a\n", true},
		"oauth2-proxy's nginx":   {"/oauth2/auth", "X-Forwarded-Uri: /a?b\nX-Real-Ip: 10.0.0.1\n", true},
		"Authelia's nginx": {
			"/api/authz/auth-request", "X-Original-Method: GET\nX-Original-Url: https://app.example.com/a\n", true,
		},
		"the address before a rewrite": {"/a?c", "X-Original-Uri: /a?b\n", false},
		"the URL before a rewrite":     {"/a", "X-Original-Url: https://app.example.com/a?b\n", false},
		"the root's":                   {"/", "X-Original-Url: https://app.example.com\n", false},
		"an absolute target":           {"http://web/a", "X-Original-Uri: /a\n", false},
		"an ingress": {
			"/a", "X-Forwarded-For: 10.0.0.1\nX-Forwarded-Host: web.example.com\nX-Forwarded-Proto: https\n", false,
		},
		"a prefix that an ingress strips": {"/a", "X-Forwarded-Prefix: /web\n", false},
	} {
		if got := IsSubrequest(asked("h", tc.target, tc.header)); got != tc.want {
			t.Errorf("%s: got %t, want %t", name, got, tc.want)
		}
	}
}

func TestIsFromBrowser(t *testing.T) {
	const proxied = "X-Forwarded-For: 10.0.0.1\n"
	ingress := &api.Reach{Hosts: []string{"web.example.com", "*.apps.example.com", "grafana"}, Inside: []string{"10.96.0.7", "fd00::7"}}
	for name, tc := range map[string]struct {
		reach        *api.Reach
		host, header string
		want         bool
	}{
		"an older controller says nothing":     {nil, "web", "", true},
		"an ingress":                           {ingress, "web.example.com", proxied, true},
		"with a port":                          {ingress, "Web.Example.Com:8443", proxied, true},
		"a wildcard":                           {ingress, "a.apps.example.com", proxied, true},
		"two labels are not one":               {ingress, "a.b.apps.example.com", proxied, false},
		"no label is not one":                  {ingress, ".apps.example.com", proxied, false},
		"another app's host":                   {ingress, "other.example.com", proxied, false},
		"no proxy says so":                     {ingress, "web.example.com", "", false},
		"an ingress named as the Service":      {ingress, "grafana", proxied, true},
		"a proxy in the cluster, no Ingress":   {&api.Reach{}, "web.example.com", "Forwarded: for=10.0.0.1\n", true},
		"auth_request that passes Host":        {&api.Reach{}, "app.example.com", "", false},
		"a backend that passes all headers on": {&api.Reach{}, "web", proxied, false},
		"by namespace":                         {&api.Reach{}, "web.shop:80", proxied, false},
		"by svc":                               {&api.Reach{}, "web.shop.svc", proxied, false},
		"by its whole name":                    {&api.Reach{}, "web.shop.svc.cluster.local.", proxied, false},
		"another Service's":                    {&api.Reach{}, "web.shop2", proxied, true},
		"by cluster IP":                        {ingress, "10.96.0.7:80", proxied, false},
		"by cluster IP, IPv6":                  {ingress, "[fd00::7]:80", proxied, false},
		"no Host at all":                       {&api.Reach{}, "", proxied, false},
		"a node port":                          {&api.Reach{Direct: true}, "192.168.1.5:30080", "", true},
		"a load balancer beside an Ingress":    {&api.Reach{Direct: true, Hosts: []string{"a.example.com"}}, "b.example.com", "", true},
		"a program, beside a load balancer":    {&api.Reach{Direct: true}, "web.shop", "", false},
	} {
		f := Front{Namespace: "shop", Service: "web", Reach: tc.reach}
		if got := f.IsFromBrowser(asked(tc.host, "/", tc.header)); got != tc.want {
			t.Errorf("%s: got %t, want %t", name, got, tc.want)
		}
	}
	for _, header := range []string{"X-Forwarded-Host: h\n", "X-Forwarded-Proto: https\n", "X-Real-Ip: 10.0.0.1\n"} {
		if f := (Front{Namespace: "shop", Service: "web", Reach: &api.Reach{}}); !f.IsFromBrowser(asked("h", "/", header)) {
			t.Errorf("%q is of no proxy", header)
		}
	}
}
