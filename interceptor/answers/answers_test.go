// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package answers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
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

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	xhttp2 "golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
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
			&route.HoldTimeoutError{
				Service: "shop/web", Target: route.Key{Namespace: "shop", Workload: "Deployment/web"}, Waited: 300 * time.Second,
			},
			http.StatusGatewayTimeout, "10", "service shop/web: no pod of Deployment/web became ready while this request waited, for 5m0s",
		},
		"no place": {
			&route.HoldTimeoutError{
				Service: "shop/web", Target: route.Key{Namespace: "shop", Workload: "Deployment/web"}, Waited: 300 * time.Second,
				Busy: &route.Busy{Ready: 3, PerPod: 10},
			},
			http.StatusGatewayTimeout, "10", "scale-to-zero: all 3 ready pods of Deployment/web have the 10 pending requests each that " +
				"max-pending-per-pod allows, and they have not answered enough of those before this one (for service shop/web) within 5m0s.",
		},
		"out of reach": {
			&route.UnreachableError{
				Service: "shop/web", Target: route.Key{Namespace: "shop", Workload: "Deployment/web"}, Ready: 1, Addr: "10.1.0.7:8080",
				Err: syscall.EHOSTUNREACH, Details: true,
			},
			http.StatusGatewayTimeout, "10",
			"service shop/web: Deployment/web has 1 ready pod, but connecting to 10.1.0.7:8080 failed: no route to host; " +
				"does a NetworkPolicy forbid it?",
		},
		"cannot start": {
			&route.StartFailedError{
				Service: "shop/web", Target: route.Key{Namespace: "shop", Workload: "Deployment/web"},
				Progress: api.Progress{Failing: "its image web:2 cannot be pulled"},
			},
			http.StatusServiceUnavailable, "10", "Deployment/web (for service shop/web) cannot start: its image web:2 cannot be pulled.",
		},
		"too many held":   {fmt.Errorf("picking: %w", route.ErrTooManyHeld), http.StatusServiceUnavailable, "5", "too many requests wait"},
		"draining":        {fmt.Errorf("waiting: %w", ErrDraining), http.StatusServiceUnavailable, "1", "shutting down"},
		"client gone":     {fmt.Errorf("waiting: %w", context.Canceled), ClientGone, "", ""},
		"deadline":        {context.DeadlineExceeded, http.StatusGatewayTimeout, "", "did not answer in time"},
		"network timeout": {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, http.StatusGatewayTimeout, "", "did not answer in time"},
		"reset":           {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, http.StatusBadGateway, "", "closed the connection before"},
		"unreadable answer": {
			fmt.Errorf("reading: %w", &UnreadableError{"why"}), http.StatusBadGateway, "", "the app's answer is not HTTP: why.",
		},
		"end without answer": {io.EOF, http.StatusBadGateway, "", "closed the connection before"},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			WriteTo(w, httptest.NewRequest(http.MethodGet, "/", nil), new(Maker).For(nil, &route.Visit{}, tc.err, nil), tc.err)
			if w.Code != tc.status || w.Header().Get("Retry-After") != tc.retryAfter || !strings.Contains(w.Body.String(), tc.text) {
				t.Errorf("got %d, Retry-After %q, %q", w.Code, w.Header().Get("Retry-After"), w.Body)
			}
			if w.Header().Get("Cache-Control") != "no-store" {
				t.Error("the answer may be cached")
			}
		})
	}
}

// A gRPC client gets a gRPC status. It says that the client may try again only if the app has not given up the call.
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
			err := fmt.Errorf("calling: %w", tc.err)
			WriteTo(w, r, For(err), err)
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

// A gRPC client gets the status that it would derive from the app's reset by itself.
func TestResetCode(t *testing.T) {
	for code, want := range map[xhttp2.ErrCode]string{
		xhttp2.ErrCodeNo: "Internal", xhttp2.ErrCodeProtocol: "Internal", xhttp2.ErrCodeInternal: "Internal",
		xhttp2.ErrCodeRefusedStream: "Unavailable", xhttp2.ErrCodeCancel: "Canceled",
		xhttp2.ErrCodeEnhanceYourCalm: "ResourceExhausted", xhttp2.ErrCodeInadequateSecurity: "PermissionDenied",
	} {
		if got := resetCode(code).String(); got != want {
			t.Errorf("%v is %s, want %s", code, got, want)
		}
	}
}

func TestIsGRPC(t *testing.T) {
	for value, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;charset=utf-8": true,
		"application/grpc-web": false, "application/grpc-web+proto": false, "text/html": false, "": false,
	} {
		if got := isGRPC(http.Header{"Content-Type": {value}}); got != want {
			t.Errorf("%q is %v", value, got)
		}
	}
}

// The answer to gRPC's health check for a sleeping app is a message that gRPC's own code can read.
func TestHealthy(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, route.HealthCheck, nil)
	r.Header.Set("Content-Type", "application/grpc")
	err := &route.AsleepError{}
	w := httptest.NewRecorder()
	WriteTo(w, r, For(err), err)
	var got grpc_health_v1.HealthCheckResponse
	b := w.Body.Bytes()
	if len(b) < 5 || b[0] != 0 || int(binary.BigEndian.Uint32(b[1:])) != len(b)-5 {
		t.Fatalf("framed as %v", b)
	}
	if err := proto.Unmarshal(b[5:], &got); err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v", got.GetStatus(), err)
	}
	if got := w.Result().Trailer.Get("Grpc-Status"); got != "0" {
		t.Errorf("status %q", got)
	}
}

func TestAppend(t *testing.T) {
	a := Answer{Status: http.StatusServiceUnavailable, RetryAfter: 5, Text: "no", Fields: []Field{{StateField, "asleep"}}}
	const head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n" +
		"X-Content-Type-Options: nosniff\r\nRetry-After: 5\r\nScale-To-Zero: asleep\r\nContent-Length: 3\r\n"
	for name, tc := range map[string]struct {
		ends, head bool
		want       string
	}{
		"it goes on":  {false, false, head + "\r\nno\n"},
		"it ends":     {true, false, head + "Connection: close\r\n\r\nno\n"},
		"for a HEAD":  {false, true, head + "\r\n"},
		"a last HEAD": {true, true, head + "Connection: close\r\n\r\n"},
	} {
		if got := string(Append(nil, a, tc.ends, tc.head)); got != tc.want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// Both writers send the same fields.
func TestWritersAgree(t *testing.T) {
	for _, err := range []error{
		&route.AsleepError{}, &route.AsleepError{Starting: true}, &route.AsleepError{Quiet: true}, &route.DownError{Service: "shop/web"},
		&route.StartingError{Service: "shop/web"}, route.ErrTooManyHeld, http1.ErrConnectMethod, io.EOF,
	} {
		a := new(Maker).For(nil, &route.Visit{Wait: route.Wait{Held: 1500 * time.Millisecond}}, err, nil)
		w := httptest.NewRecorder()
		Write(w, a)
		by1, read := http.ReadResponse(bufio.NewReader(bytes.NewReader(Append(nil, a, false, false))), nil)
		if read != nil {
			t.Fatal(read)
		}
		body, _ := io.ReadAll(by1.Body)
		by1.Header.Del("Content-Length")
		if diff := cmp.Diff(w.Header(), by1.Header); diff != "" || by1.StatusCode != w.Code || string(body) != w.Body.String() {
			t.Errorf("%v: %d and %d, %q and %q, %s", err, w.Code, by1.StatusCode, w.Body, body, diff)
		}
		if got := w.Header().Get(HeldField); got != "1.500s" {
			t.Errorf("it was held for %q", got)
		}
	}
	m := Maker{HideHeld: true}
	if a := m.For(nil, &route.Visit{Wait: route.Wait{Held: time.Second}}, io.EOF, nil); len(a.Fields) != 0 {
		t.Errorf("it says %v", a.Fields)
	}
}

func TestDraining(t *testing.T) {
	if a := Draining(ErrDraining); a.Status != http.StatusServiceUnavailable || len(a.Fields) != 1 ||
		a.Fields[0] != (Field{StateField, "starting"}) {
		t.Errorf("got %+v", a)
	}
}

func TestEndGRPC(t *testing.T) {
	w := httptest.NewRecorder()
	if EndGRPC(w, http.Header{"Content-Type": {"text/html"}}, io.EOF) || len(w.Header()) != 0 {
		t.Error("what is no gRPC was ended as such")
	}
	if !EndGRPC(w, http.Header{"Content-Type": {"application/grpc"}}, context.DeadlineExceeded) ||
		w.Header().Get("Trailer:Grpc-Status") != "4" {
		t.Errorf("got %v", w.Header())
	}
}

// pageRoute returns a route whose workload sleeps, or cannot start.
func pageRoute(t *testing.T, progress api.Progress) *route.Route {
	t.Helper()
	var l listeners
	table := route.NewTable(route.TableOptions{
		Listeners: &l, Waker: &l,
		RouteMetrics: func(string, string) route.Metrics { return &l }, TargetMetrics: func(route.Key) route.TargetMetrics { return &l },
	})
	table.SetService(route.Service{Namespace: "shop", Name: "web", Progress: progress, Routes: api.Routes{
		Service: "web", Workload: api.Workload{Kind: "Deployment", Name: "web"}, Ports: []api.Port{{Listen: 10000}},
	}})
	return l.route
}

// listeners keep the route that a table makes.
type listeners struct{ route *route.Route }

func (l *listeners) Open(r *route.Route)                            { l.route = r }
func (l *listeners) Close(*route.Route)                             {}
func (l *listeners) Wake(*route.Route, *route.Target, *route.Visit) {}
func (l *listeners) Held(time.Duration)                             {}
func (l *listeners) Answered(int)                                   {}
func (l *listeners) Ignored()                                       {}
func (l *listeners) Woken()                                         {}
func (l *listeners) ColdStart(time.Duration)                        {}

func TestPage(t *testing.T) {
	m := Maker{Pages: page.New(logr.Discard())}
	failing := api.Progress{Failing: "its image cannot be pulled", Reason: "ImagePullBackOff"}
	value := func(string) string { return "" }
	for name, tc := range map[string]struct {
		err   error
		limit time.Duration
		state string // of the page; empty means no page
		retry int
	}{
		"starting":          {&route.StartingError{Service: "shop/web"}, time.Second, "starting", 2},
		"failing":           {&route.StartFailedError{Service: "shop/web", Progress: failing}, time.Second, "failing", 10},
		"without a limit":   {&route.StartingError{Service: "shop/web"}, 0, "", 2},
		"too many are held": {route.ErrTooManyHeld, time.Second, "", 5},
	} {
		t.Run(name, func(t *testing.T) {
			a := m.For(pageRoute(t, api.Progress{}), &route.Visit{Wait: route.Wait{Limit: tc.limit}}, tc.err, value)
			state := ""
			for _, f := range a.Fields {
				if f.Name == StateField {
					state = f.Value
				}
			}
			if state != tc.state || a.RetryAfter != tc.retry || strings.HasPrefix(a.Kind, "text/html") != (tc.state != "") || a.Status != 503 {
				t.Errorf("got state %q, retry after %d, %s, %d", state, a.RetryAfter, a.Kind, a.Status)
			}
		})
	}
	for state, w := range map[string]page.Wait{"ready": {Ready: true}, "failing": {Progress: failing}, "starting": {}} {
		if a := m.Report(w, ""); a.Fields[0] != (Field{StateField, state}) || a.Kind != "application/json" || a.Status != 200 {
			t.Errorf("got %+v", a)
		}
	}
	if w := WaitFor(pageRoute(t, api.Progress{}), route.Start{Elapsed: time.Second}, time.Minute); w.Elapsed != time.Minute || w.App != "web" {
		t.Errorf("got %+v", w)
	}
}
