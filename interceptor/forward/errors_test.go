// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"google.golang.org/grpc/codes"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

func TestAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		err        error
		status     int
		retryAfter string
		text       string
	}{
		"held too long": {
			&route.HoldTimeoutError{Service: "shop/web", Target: route.Key{Namespace: "shop", Workload: "Deployment/web"}, Waited: 300 * time.Second},
			http.StatusGatewayTimeout, "10", "service shop/web: no pod of Deployment/web became ready while this request waited, for 5m0s",
		},
		"out of reach": {
			&route.UnreachableError{
				Service: "shop/web", Target: route.Key{Namespace: "shop", Workload: "Deployment/web"}, Ready: 1, Addr: "10.1.0.7:8080", Err: syscall.EHOSTUNREACH,
			},
			http.StatusGatewayTimeout, "10",
			"service shop/web: Deployment/web has 1 ready pod, but connecting to 10.1.0.7:8080 failed: no route to host; does a NetworkPolicy forbid it?",
		},
		"cannot start": {
			&route.StartFailedError{
				Service: "shop/web", Target: route.Key{Namespace: "shop", Workload: "Deployment/web"},
				Progress: api.Progress{Failing: "its image web:2 cannot be pulled"},
			},
			http.StatusServiceUnavailable, "10", "Deployment/web (for service shop/web) cannot start: its image web:2 cannot be pulled.",
		},
		"too many held":      {fmt.Errorf("picking: %w", route.ErrTooManyHeld), http.StatusServiceUnavailable, "5", "too many requests wait"},
		"draining":           {fmt.Errorf("waiting: %w", ErrDraining), http.StatusServiceUnavailable, "1", "shutting down"},
		"client gone":        {fmt.Errorf("waiting: %w", context.Canceled), StatusClientGone, "", ""},
		"deadline":           {context.DeadlineExceeded, http.StatusGatewayTimeout, "", "did not answer in time"},
		"network timeout":    {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, http.StatusGatewayTimeout, "", "did not answer in time"},
		"reset":              {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, http.StatusBadGateway, "", "broke off"},
		"unreadable answer":  {fmt.Errorf("reading: %w", errAnswer{"why"}), http.StatusBadGateway, "", "the app's answer is not HTTP: why."},
		"end without answer": {io.EOF, http.StatusBadGateway, "", "broke off"},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			respondHTTP2(w, httptest.NewRequest(http.MethodGet, "/", nil), tc.err)
			if w.Code != tc.status || w.Header().Get("Retry-After") != tc.retryAfter || !strings.Contains(w.Body.String(), tc.text) {
				t.Errorf("got %d, Retry-After %q, %q", w.Code, w.Header().Get("Retry-After"), w.Body)
			}
			if w.Header().Get("Cache-Control") != "no-store" {
				t.Error("the answer may be cached")
			}
		})
	}
}

// A gRPC client is told by a status of its own, and that it may try again only where the app has not given the call up.
func TestGRPCCodes(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want codes.Code
	}{
		"held too long":    {&route.HoldTimeoutError{Service: "shop/web"}, codes.Unavailable},
		"out of reach":     {&route.UnreachableError{Service: "shop/web", Err: os.ErrDeadlineExceeded}, codes.Unavailable},
		"cannot start":     {&route.StartFailedError{Service: "shop/web"}, codes.Unavailable},
		"draining":         {ErrDraining, codes.Unavailable},
		"broken off":       {io.EOF, codes.Unavailable},
		"deadline":         {context.DeadlineExceeded, codes.DeadlineExceeded},
		"client gone":      {context.Canceled, codes.Canceled},
		"app has canceled": {xhttp2.StreamError{Code: xhttp2.ErrCodeCancel}, codes.Canceled},
		"app has refused":  {xhttp2.StreamError{Code: xhttp2.ErrCodeRefusedStream}, codes.Unavailable},
		"app has failed":   {xhttp2.StreamError{Code: xhttp2.ErrCodeInternal}, codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			r.Header.Set("Content-Type", "application/grpc+proto")
			w := httptest.NewRecorder()
			respondHTTP2(w, r, fmt.Errorf("calling: %w", tc.err))
			h := w.Header()
			if w.Code != 200 || h.Get("Grpc-Status") != strconv.Itoa(int(tc.want)) || h.Get("Content-Type") != "application/grpc" {
				t.Errorf("got %d with %v", w.Code, h)
			}
			if w.Body.Len() > 0 {
				t.Errorf("body %q", w.Body)
			}
		})
	}
}

func TestVisitOf(t *testing.T) {
	for name, tc := range map[string]struct {
		forwarded []string
		want      string
	}{
		"directly":              {[]string{"10.0.0.1"}, "10.0.0.1"},
		"by an ingress":         {[]string{"192.0.2.1, 10.0.0.1"}, "192.0.2.1"},
		"forged before ingress": {[]string{"6.6.6.6, 192.0.2.1, 10.0.0.1"}, "192.0.2.1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/a?secret", nil)
			r.RemoteAddr = "10.0.0.1:5"
			r.Header["X-Forwarded-For"] = tc.forwarded
			if got := visitOf(r); got.Remote != tc.want || got.Path != "/a" || got.Method != http.MethodGet {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestIdempotent(t *testing.T) {
	for method, want := range map[string]bool{
		"GET": true, "HEAD": true, "OPTIONS": true, "TRACE": true, "PUT": true, "DELETE": true,
		"POST": false, "PATCH": false, "CONNECT": false, "PROPFIND": false, "get": false, "": false,
	} {
		if idempotent(method) != want || idempotent([]byte(method)) != want {
			t.Errorf("%q is not %v", method, want)
		}
	}
}
