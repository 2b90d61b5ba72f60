// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func dialError(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}, Err: err}
}

// If pods are ready and cannot be connected to, the error says that, and not that none became ready. If it lasts, it is reported
// once.
func TestUnreachable(t *testing.T) {
	timeout, refused := dialError(os.ErrDeadlineExceeded), dialError(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	for name, tc := range map[string]struct {
		err      error
		pods     []string
		says     string
		reported time.Duration // time since the first try, at least
	}{
		"dropped": {
			timeout,
			[]string{"10.0.0.1:80"},
			"Deployment/web has 1 ready pod, but connecting to 10.0.0.1:80 failed: i/o timeout; does a NetworkPolicy forbid it?",
			unreachableFor,
		},
		"of several": {
			dialError(os.NewSyscallError("connect", syscall.EHOSTUNREACH)),
			[]string{"10.0.0.1:80", "10.0.0.2:80"},
			"Deployment/web has 2 ready pods, but connecting to 10.0.0.1:80 failed: no route to host; does a NetworkPolicy forbid it?",
			unreachableFor,
		},
		"refused": {
			refused,
			[]string{"10.0.0.1:80"},
			"Deployment/web has 1 ready pod, but connecting to 10.0.0.1:80 failed: connection refused; does the app listen there, " +
				"or does a NetworkPolicy reject it?",
			refusedFor,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(0)
				var reports []string
				var began, reported time.Time
				f.options.Unreachable = func(r *Route, err *UnreachableError) {
					reports, reported = append(reports, r.Name()+": "+err.Error()), time.Now()
				}
				s := web(tc.pods...)
				s.Routes.HoldTimeout *= 2
				f.SetService(s)
				began = time.Now()
				r, visit := f.route(10000), &Visit{}
				var err error
				for err == nil {
					var e *Endpoint
					if e, err = r.Pick(t.Context(), visit); err == nil {
						e.Unreachable(tc.err)
						e.Done()
					}
				}
				var unreachable *UnreachableError
				if !errors.As(err, &unreachable) || unreachable.Error() != tc.says || time.Since(began) < 2*time.Minute {
					t.Errorf("after %s: %v", time.Since(began), err)
				}
				if len(reports) != 1 || reports[0] != "shop/web: "+tc.says || reported.Sub(began) < tc.reported ||
					reported.Sub(began) > tc.reported+2*suspectMax {
					t.Errorf("reported after %s: %q", reported.Sub(began), reports)
				}
				if start := r.Start(); start.Progress.Failing != "its pods cannot be reached" {
					t.Errorf("the waiting page says %+v", start.Progress)
				}
				full := s
				full.Routes.FullDetails = true
				f.SetService(full)
				if start := r.Start(); start.Progress.Failing != tc.says {
					t.Errorf("the waiting page says %+v to those who may read everything", start.Progress)
				}

				// A failure that is over is forgotten.
				for _, e := range r.snap.Load().endpoints {
					e.Succeed()
				}
				r.snap.Load().endpoints[0].Fail() // the pod breaks off, which is a different failure
				if err := r.snap.Load().timedOut(r, &Visit{}, time.Second); strings.Contains(err.Error(), "connecting") {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
}

func TestDialReason(t *testing.T) {
	for want, err := range map[string]error{
		"i/o timeout":        dialError(os.ErrDeadlineExceeded),
		"connection refused": dialError(os.NewSyscallError("connect", syscall.ECONNREFUSED)),
		"something else":     errors.New("something else"),
	} {
		if got := DialReason(err); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
