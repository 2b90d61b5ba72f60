// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// granted is a scaler without a right until a while has passed.
type granted struct {
	fakeWorkloads

	from time.Time
	at   []time.Duration // since from: the attempts
	take time.Duration
}

func (g *granted) Scale(context.Context, string, api.Workload, int32) (bool, error) {
	since := time.Since(g.from)
	g.at = append(g.at, since)
	if since < g.take {
		return false, fmt.Errorf("x: %w", &RefusedError{Err: errors.New("User cannot get"), NoRight: true})
	}
	return true, nil
}

// A missing right is tried again at short pauses at first, as after the Role was made, and then every second for as long as a request
// is held, as during an upgrade. Only one that is missing for long is an event.
func TestWakerWaitsForItsRight(t *testing.T) {
	for name, tc := range map[string]struct {
		take, within time.Duration
		warned       bool
	}{
		"it is there":         {0, 0, false},
		"a moment":            {30 * time.Millisecond, 20 * time.Millisecond, false},
		"a slow API server":   {600 * time.Millisecond, 200 * time.Millisecond, false},
		"a restart":           {3500 * time.Millisecond, time.Second, false},
		"an upgrade":          {30500 * time.Millisecond, time.Second, true},
		"as long as it holds": {4*time.Minute + 500*time.Millisecond, time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				workloads, events := &granted{from: time.Now(), take: tc.take}, &fakeEvents{}
				w := NewWaker(WakerOptions{Scaler: workloads, Events: events, Peers: newFakePeers(), Log: logr.Discard(), Hub: counts.NewHub()})
				defer w.Close()
				table, l := newTable(w)
				s := service()
				s.Routes.HoldTimeout = api.Duration(5 * time.Minute)
				table.SetService(s)
				done := make(chan error, 1)
				go func() {
					e, err := l.route.Pick(t.Context(), &route.Visit{Method: "GET", Path: "/", Remote: "192.0.2.1:5"})
					if err == nil {
						e.Done()
					}
					done <- err
				}()
				advance(tc.take + tc.within)
				last := workloads.at[len(workloads.at)-1]
				if last < tc.take || last > tc.take+tc.within {
					t.Errorf("the right is used %s after it came; attempts at %v", last-tc.take, workloads.at)
				}
				if most := 5 + int(tc.take/time.Second) + 1; len(workloads.at) > most {
					t.Errorf("%d attempts in %s", len(workloads.at), tc.take)
				}
				s.Endpoints = service("10.0.0.1:80").Endpoints
				table.SetService(s)
				if err := <-done; err != nil {
					t.Error(err)
				}
				advance(time.Minute)
				if (len(events.warnings) > 0) != tc.warned {
					t.Errorf("%d warnings", len(events.warnings))
				}
				for _, one := range events.warnings {
					if one.ID != "wake-refused-s1" || one.Reason != "WakeRefused" || !strings.HasPrefix(one.Message,
						"Deployment/web cannot be woken: the interceptors have no right to scale it up. The controllers grant it by a Role") {
						t.Errorf("warning %+v", one)
					}
				}
			})
		})
	}
}
