// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// knocked returns what app knock prints.
func knocked(t *testing.T, args ...string) []opened {
	t.Helper()
	var stdout, stderr strings.Builder
	if code := run(t.Context(), append([]string{"knock"}, args...), nil, &stdout, &stderr); code != 0 {
		t.Fatalf("code %d: %s", code, stderr.String())
	}
	var all []opened
	for line := range strings.Lines(stdout.String()) {
		var o opened
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

func TestKnock(t *testing.T) {
	greeting, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer greeting.Close()
	go func() {
		for {
			conn, err := greeting.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("hello"))
			_ = conn.Close()
		}
	}()
	silent := httptest.NewServer(http.NotFoundHandler())
	defer silent.Close()
	at := silent.Listener.Addr().String()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	got := knocked(t, "-wait", "50ms", greeting.Addr().String(), at, closed.Addr().String())
	slices.SortFunc(got, func(a, b opened) int { return strings.Compare(a.Read, b.Read) })
	if len(got) != 2 || got[0] != (opened{Address: at}) || got[1] != (opened{Address: greeting.Addr().String(), Read: "hello"}) {
		t.Errorf("got %+v", got)
	}
	port := at[strings.LastIndexByte(at, ':')+1:]
	if got := knocked(t, "-wait", "50ms", "127.0.0.1:"+port+"-"+port); len(got) != 1 || got[0].Address != at {
		t.Errorf("a range: got %+v", got)
	}
}

func TestKnockWithoutCertificate(t *testing.T) {
	for name, tc := range map[string]struct {
		auth tls.ClientAuthType
		want string
	}{
		"none is asked for": {tls.NoClientCert, ""},
		"one is asked for":  {tls.RequireAnyClientCert, "certificate required"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.TLS = &tls.Config{ClientAuth: tc.auth}
			s.StartTLS()
			defer s.Close()
			got := knocked(t, "-tls", "-wait", "1s", s.Listener.Addr().String())
			if len(got) != 1 || tc.want == "" && got[0].Error != "" || !strings.Contains(got[0].Error, tc.want) {
				t.Errorf("got %+v, want %q", got, tc.want)
			}
		})
	}
}

func TestKnockArguments(t *testing.T) {
	for _, args := range []string{"", "localhost", "localhost:x", "localhost:1-70000", "-c 0 localhost:1", "-x"} {
		var stdout, stderr strings.Builder
		if code := run(t.Context(), append([]string{"knock"}, strings.Fields(args)...), nil, &stdout, &stderr); code != 2 ||
			stderr.Len() == 0 {
			t.Errorf("%q: code %d, %q", args, code, stderr.String())
		}
	}
}
