// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package headers

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// forged are fields by which a client without a proxy may lie about its way.
var forged = []string{
	"Forwarded", "FORWARDED", "X-Real-IP", "x-real-ip", "X_Real_IP", "X_Forwarded_For", "X-Forwarded_For", "X-Forwarded-Port",
	"X-Forwarded-Server", "X-Forwarded-Prefix", "X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Client-Cert", "X-Forwarded-User",
	"X-Forwarded-Something-That-Nobody-Has-Thought-Of-Yet", "X-Original-Forwarded-For", "X-Original-URL", "True-Client-IP",
	"CF-Connecting-IP", "X-Client-IP", "X-Envoy-External-Address", "X-AppEngine-Remote-Addr",
}

// honest are fields that tell nothing about the way.
var honest = []string{
	"X-Forward", "X-Forwardedness", "Forwarding", "X-Real", "X-Request-Id", "Accept", "X-Requested-With", "X-Own", "X", "Origin",
	"X-Real-IP-But-Longer-Than-All-Of-Them",
}

func TestWithoutProxies(t *testing.T) {
	var lines strings.Builder
	h := http.Header{}
	for _, name := range slices.Concat(forged, honest) {
		lines.WriteString(name + ": 10.0.0.1\r\n")
		h.Add(name, "10.0.0.1")
	}
	head := []byte("GET / HTTP/1.1\r\nHost: h\r\n" + lines.String() + "\r\n")
	var r http1.Request
	if n, err := r.Parse(head); err != nil || n != len(head) {
		t.Fatalf("parsed %d of %d bytes: %v", n, len(head), err)
	}
	for _, trusted := range []int{0, 1, AllHops} {
		w := Way{Remote: "192.0.2.1", Trusted: trusted}
		by1, by2 := string(AppendRequest(nil, &r, head, w, "h")), Request(h, "h", w)
		for _, name := range forged {
			if passed := strings.Contains(by1, "\r\n"+name+": 10.0.0.1\r\n"); passed != (trusted != 0) {
				t.Errorf("%d trusted hops, HTTP/1.1: %s passes: %t", trusted, name, passed)
			}
			if passed := by2.Get(name) == "10.0.0.1"; passed != (trusted != 0) {
				t.Errorf("%d trusted hops, HTTP/2: %s passes: %t", trusted, name, passed)
			}
		}
		for _, name := range honest {
			if !strings.Contains(by1, "\r\n"+name+": 10.0.0.1\r\n") || by2.Get(name) != "10.0.0.1" {
				t.Errorf("%d trusted hops: %s is lost", trusted, name)
			}
		}
	}
}
