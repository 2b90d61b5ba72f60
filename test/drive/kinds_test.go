// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// good is the right answer of an app.
func good(t *testing.T, p plan) answer {
	t.Helper()
	r, err := p.request("h")
	if err != nil {
		t.Fatal(err)
	}
	a := answer{status: http.StatusOK, header: http.Header{"X-App": {"app1-5d9-xyz"}}}
	switch {
	case p.method == http.MethodHead:
	case p.name == "GET large":
		for i := range p.size {
			a.body = append(a.body, 'a'+byte(i%26))
		}
	case p.name == "GET slow":
		a.body = []byte("app1-5d9-xyz took 1ms\n")
	default:
		sent, _ := io.ReadAll(r.Body)
		sum := sha256.Sum256(sent)
		a.body, _ = json.Marshal(map[string]any{
			"method": r.Method, "headers": r.Header, "bodyBytes": len(sent), "bodySha256": hex.EncodeToString(sum[:]),
		})
	}
	return a
}

func TestCheck(t *testing.T) {
	for _, k := range kinds() {
		p := plan{kind: k, id: "app1-7", size: 300}
		if err := p.check("app1", good(t, p)); err != nil {
			t.Errorf("%s: a good answer: %v", k.name, err)
		}
		other := p
		other.id = "app1-8"
		long := p
		long.size++
		for _, tc := range []struct {
			name string
			a    answer
			// For these kinds, nothing distinguishes such an answer from a good one.
			except []string
		}{
			{"503", answer{http.StatusServiceUnavailable, good(t, p).header, good(t, p).body}, nil},
			{"another app's", answer{http.StatusOK, http.Header{"X-App": {"app11-5d9-xyz"}}, good(t, p).body}, nil},
			{"no app's", answer{http.StatusOK, nil, good(t, p).body}, nil},
			{"half of the body", answer{http.StatusOK, good(t, p).header, good(t, p).body[:len(good(t, p).body)/3]}, []string{"HEAD"}},
			{"another request's", good(t, other), []string{"HEAD", "GET slow", "GET large"}},
			{"one to another length", good(t, long), []string{"HEAD", "GET slow", "GET", "DELETE", "POST empty"}},
		} {
			if err := p.check("app1", tc.a); err == nil && !slices.Contains(tc.except, k.name) {
				t.Errorf("%s: the answer is %s, and passes", k.name, tc.name)
			}
		}
	}
}

// The same seed gives the same plan, and every kind occurs.
func TestPlans(t *testing.T) {
	a, b := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(1, 2))
	seen := map[string]int{}
	for range 500 {
		p, q := newPlan(a, "1"), newPlan(b, "1")
		if p != q {
			t.Fatalf("%+v and %+v of the same seed", p, q)
		}
		seen[p.name]++
	}
	if len(seen) != len(kinds()) {
		t.Errorf("only these came: %v", seen)
	}
}

// What is sent arrives: method, number, length or chunks, and the body.
func TestRequests(t *testing.T) {
	var got *http.Request
	var body []byte
	h := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer h.Close()
	connections := lines{address: strings.TrimPrefix(h.URL, "http://")}
	for i, k := range kinds() {
		p := plan{kind: k, id: "app1-7", size: 100_000, kept: true}
		r, err := p.request(connections.address)
		if err != nil {
			t.Fatal(err)
		}
		l, reused, err := connections.take(t.Context(), true)
		if err != nil || reused != (i > 0) {
			t.Fatalf("%s: the connection is reused: %v, %v", k.name, reused, err)
		}
		a, keep, err := l.exchange(r)
		if err != nil || a.status != http.StatusOK || !keep {
			t.Fatalf("%s: %+v, %v, %v", k.name, a, keep, err)
		}
		connections.put(l)
		if got.Method != k.method || got.Header.Get("X-Drive") != p.id {
			t.Errorf("%s: it was %s %v", k.name, got.Method, got.Header)
		}
		if want := p.content(); k.body && string(body) != string(want) || !k.body && len(body) > 0 {
			t.Errorf("%s: %d bytes came", k.name, len(body))
		}
		if chunked := slices.Contains(got.TransferEncoding, "chunked"); chunked != k.chunks {
			t.Errorf("%s: chunked is %v", k.name, chunked)
		}
	}
	h.CloseClientConnections()
	if _, reused, err := connections.take(t.Context(), true); reused || err != nil || connections.closedIdle() != 1 {
		t.Errorf("after the server has closed: reused %v, %d found closed, %v", reused, connections.closedIdle(), err)
	}
}
