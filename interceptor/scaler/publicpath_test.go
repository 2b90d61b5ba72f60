// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"strings"
	"testing"
)

func TestPublicPath(t *testing.T) {
	for path, want := range map[string]string{
		"":                                "",
		"*":                               "*",
		"/":                               "/",
		"/login":                          "/login",
		"/api/v1/dags/":                   "/api/v1/dags/",
		"/static/app.js":                  "/static/app.js",
		"/orders/1234567":                 "/orders/1234567",
		"/a-long-title-of-a-post/":        "/a-long-title-of-a-post/",
		"/x?token=1":                      "/x",
		"/x#access_token=1":               "/x",
		"/x;jsessionid=0A1B?y":            "/x",
		"/x;JSESSIONID=0A1B/y;v=1":        "/x/y",
		"/sid=secret/y":                   "/sid=.../y",
		"/reset/abc":                      "/reset/...",
		"/Reset/abc/def":                  "/Reset/.../def",
		"/users/confirm/":                 "/users/confirm/",
		"/d/3f2b8c1e-9a4d-4f6b-8c2e-1f0a": "/d/...",
		"/eyJhbGciOiJIUzI1NiJ9.e30.abc":   "/...",
		"/hooks/T0/B0/x":                  "/hooks/.../B0/x",
		"http://user:pass@host/x":         "http://host/x",
		"http://u:p@q@host":               "http://host",
		"/" + strings.Repeat("a", 40):     "/...",
		"/" + strings.Repeat("a", 39):     "/" + strings.Repeat("a", 39),
	} {
		if got := PublicPath(path); got != want {
			t.Errorf("%q became %q, want %q", path, got, want)
		}
	}
}
