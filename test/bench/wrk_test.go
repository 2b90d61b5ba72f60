// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"strings"
	"testing"
)

const wrkSays = `Running 2s test @ http://127.0.0.1:8080/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.10ms    1.25ms  20.04ms   88.73%
    Req/Sec    35.74k     4.51k   46.57k    69.05%
  148623 requests in 2.10s, 33.31MB read
%sRequests/sec:  70776.12
Transfer/sec:     15.86MB
`

func TestParseWrk(t *testing.T) {
	for name, tc := range map[string]struct {
		out            string
		requests, rate float64
		err            string
	}{
		"success":       {out: strings.Replace(wrkSays, "%s", "", 1), requests: 148623, rate: 70776.12},
		"socket errors": {out: strings.Replace(wrkSays, "%s", "  Socket errors: connect 0, read 12, write 0, timeout 3\n", 1), err: "read 12"},
		"other answers": {out: strings.Replace(wrkSays, "%s", "  Non-2xx or 3xx responses: 5\n", 1), err: "responses: 5"},
		"no requests":   {out: "  0 requests in 2.00s, 0.00B read\nRequests/sec:      0.00\n", err: "no requests"},
		"nothing":       {err: "no requests"},
		"no number":     {out: "Requests/sec: many\n", err: "parsing"},
	} {
		t.Run(name, func(t *testing.T) {
			requests, rate, err := parseWrk(tc.out)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || requests != tc.requests || rate != tc.rate {
				t.Errorf("got %v, %v and %v", requests, rate, err)
			}
		})
	}
}

func TestTool(t *testing.T) {
	if out, err := tool(t.Context(), []string{"A=b"}, "sh", "-c", "echo $A; echo c >&2"); err != nil || out != "b\n" {
		t.Errorf("got %q and %v", out, err)
	}
	if _, err := tool(t.Context(), nil, "sh", "-c", "echo broken >&2; exit 1"); err == nil ||
		!strings.HasSuffix(err.Error(), "exit status 1: broken") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tool(ctx, nil, "sh"); err == nil || err.Error() != "interrupted" {
		t.Errorf("got %v", err)
	}
}
