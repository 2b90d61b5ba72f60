// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/headers"
)

func TestGRPCTimeout(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"":           0,
		"S":          0,
		"5S":         5 * time.Second,
		"100m":       100 * time.Millisecond,
		"00000007u":  7 * time.Microsecond,
		"3n":         3,
		"2H":         2 * time.Hour,
		"4M":         4 * time.Minute,
		"99999999H":  0, // does not fit into a Duration, and so counts as none
		"100000000S": 0, // more digits than allowed
		"-5S":        0,
		"5s":         0,
		"5":          0,
		"1.5S":       0,
	} {
		t.Run(value, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			r.Header.Set("Grpc-Timeout", value)
			if got := grpcTimeout(r); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
	if time.Duration(math.MaxInt64) < 99999999*time.Second {
		t.Error("seconds do not fit")
	}
}

// HTTP/2 has the same rule as HTTP/1.1.
func TestOutgoing(t *testing.T) {
	type header = map[string]string
	for name, tc := range map[string]struct {
		trusted int
		came    header
		want    header
	}{
		"nothing came": {headers.AllHops, header{}, header{
			"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "example.com", "X-Forwarded-Proto": "http", "User-Agent": "",
		}},
		"all are trusted": {headers.AllHops, header{"X-Forwarded-For": "1, 2", "X-Forwarded-Host": "h", "X-Forwarded-Proto": "https"}, header{
			"X-Forwarded-For": "1, 2, 192.0.2.1", "X-Forwarded-Host": "h", "X-Forwarded-Proto": "https",
		}},
		"one is": {1, header{"X-Forwarded-For": "1, 2", "X-Forwarded-Host": "h", "X-Forwarded-Proto": "https"}, header{
			"X-Forwarded-For": "2, 192.0.2.1", "X-Forwarded-Host": "h", "X-Forwarded-Proto": "https",
		}},
		"none is": {0, header{"X-Forwarded-For": "1, 2", "X-Forwarded-Host": "h", "X-Forwarded-Proto": "https"}, header{
			"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "example.com", "X-Forwarded-Proto": "http",
		}},
		"others stay": {headers.AllHops, header{"Forwarded": "for=x", "Te": "trailers", "User-Agent": "u"}, header{
			"Forwarded": "for=x", "Te": "trailers", "User-Agent": "u",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			in := httptest.NewRequest(http.MethodGet, "/a%2Fb;c?d;e=%zz", nil)
			in.RemoteAddr = "192.0.2.1:1234"
			for k, v := range tc.came {
				in.Header[k] = []string{v}
			}
			s := newStream(&Server{engine: &Engine{options: Options{TrustedHops: tc.trusted}}}, nil, in)
			out := s.outgoing(&s.early)
			for k, want := range tc.want {
				if got := out.Header.Get(k); got != want {
					t.Errorf("%s is %q, want %q", k, got, want)
				}
			}
			if got := out.URL.RequestURI(); got != "/a%2Fb;c?d;e=%zz" || out.RequestURI != "" || out.Body != nil || out.Host != in.Host {
				t.Errorf("asks %s for %q with body %v", out.Host, got, out.Body)
			}
			if _, ok := in.Header["X-Forwarded-For"]; ok != (tc.came["X-Forwarded-For"] != "") {
				t.Error("the request that came was changed")
			}
		})
	}
}
