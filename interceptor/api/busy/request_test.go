// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func TestParseRequest(t *testing.T) {
	for value, want := range map[string]Request{
		"GET /computer/api/json":            {"", "GET", "/computer/api/json"},
		"HEAD /":                            {"", "HEAD", "/"},
		"POST /busy?depth=1&tree=a[b]":      {"", "POST", "/busy?depth=1&tree=a[b]"},
		"http=GET /a%20b":                   {"http", "GET", "/a%20b"},
		"8080=GET /":                        {"8080", "GET", "/"},
		"GET /a=b":                          {"", "GET", "/a=b"},
		"":                                  {},
		"GET":                               {},
		"/computer/api/json":                {},
		"GET computer":                      {},
		"GET  /":                            {},
		" GET /":                            {},
		"GET / ":                            {},
		"get /":                             {},
		"DELETE /":                          {},
		"GET http://example.com/":           {},
		"GET //example.com/":                {},
		"GET /a b":                          {},
		"GET /a\r\nHost: b":                 {},
		"GET /a#b":                          {},
		"GET /\u00e4":                       {},
		"GET /%zz":                          {},
		"=GET /":                            {},
		"0=GET /":                           {},
		"65536=GET /":                       {},
		"080=GET /":                         {},
		"Http=GET /":                        {},
		"http=8080=GET /":                   {},
		"GET /" + strings.Repeat("a", 1024): {},
	} {
		got, ok := ParseRequest(value)
		if got != want || ok != (want != Request{}) {
			t.Errorf("%q: got %+v, %t", value, got, ok)
		}
	}
}

// What is read is a request to the host that it is sent to, as one line.
func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{"GET /computer/api/json", "http=POST /a?b", "8080=HEAD /%2f", "GET //a", "GET /\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		r, ok := ParseRequest(value)
		if !ok {
			if r != (Request{}) {
				t.Errorf("%q is not read, but %+v", value, r)
			}
			return
		}
		text := r.Method + " " + r.Path
		if r.Port != "" {
			text = r.Port + "=" + text
		}
		if text != value {
			t.Errorf("%q is read as %q", value, text)
		}
		if !api.IsBusyMethod(r.Method) || strings.ContainsAny(value, "\r\n\x00") {
			t.Errorf("%q", value)
		}
		base, _ := url.Parse("http://10.0.0.1:8080")
		to, err := base.Parse(r.Path)
		if err != nil {
			t.Skip() // the standard library is stricter about some paths, which are then sent as they are
		}
		req, err := http.NewRequestWithContext(t.Context(), r.Method, to.String(), nil)
		if err != nil || req.URL.Host != base.Host || req.URL.Fragment != "" {
			t.Errorf("%q leads to %v, %v", value, to, err)
		}
	})
}
