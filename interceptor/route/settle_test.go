// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A request waits if it comes when the workload may just have been put to sleep, until that is known. No other request waits.
func TestSettle(t *testing.T) {
	cooldown := time.Duration(web().Routes.Cooldown)
	inactive := api.InactiveAfter(cooldown)
	for name, tc := range map[string]struct {
		idle    time.Duration
		service func(*Service)
		then    func(*fixture) // after 100 ms
		want    time.Duration
	}{
		"asked a moment ago":       {idle: inactive - time.Second},
		"asked long ago":           {idle: inactive, want: settleFor},
		"its pods end":             {idle: inactive, then: func(f *fixture) { f.SetService(web()) }, want: 100 * time.Millisecond},
		"one of its pods ends":     {idle: inactive, then: func(f *fixture) { f.SetService(web("10.0.0.2:80")) }, want: settleFor},
		"asked by somebody else":   {idle: inactive, then: func(f *fixture) { f.route(10000).Target().Begin()() }, want: settleFor},
		"asleep":                   {idle: inactive, service: func(s *Service) { s.Endpoints, s.Pods = nil, 0 }},
		"never asked, up for long": {idle: 0, service: func(s *Service) { s.Name = "other" }, want: settleFor},
		"it never sleeps":          {idle: time.Hour, service: func(s *Service) { s.Routes.NeverSleeps = true }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(0)
				s := web("10.0.0.1:80", "10.0.0.2:80")
				if tc.service != nil {
					tc.service(&s)
				}
				f.SetService(s)
				r := f.route(10000)
				if s.Name == "web" {
					r.Target().Begin()()
					advance(tc.idle)
				} else {
					advance(inactive)
				}
				defer r.Target().Begin()()
				if tc.then != nil {
					time.AfterFunc(100*time.Millisecond, func() { tc.then(f) })
				}
				began := time.Now()
				if settled := r.Settled(); settled == (tc.want > 0) && name != "asleep" {
					t.Errorf("settled is %v", settled)
				}
				if err := r.Settle(t.Context()); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took != tc.want {
					t.Errorf("it waited for %s, want %s", took, tc.want)
				}
				synctest.Wait()
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web("10.0.0.1:80"))
		advance(time.Hour)
		defer f.route(10000).Target().Begin()()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := f.route(10000).Settle(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("the client has gone: %v", err)
		}
	})
}
