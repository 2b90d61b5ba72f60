// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

func keptAwake(text string, addrs ...string) route.Service {
	s := service(addrs...)
	s.Routes.Awake = text
	return s
}

// In a window, a workload is active without any request, and may be woken for nobody. After it, its requests decide.
func TestKeptAwake(t *testing.T) {
	const text = "Mon-Fri 08:00-18:30 Asia/Seoul"
	during := time.Date(2026, 3, 6, 9, 29, 59, 0, time.UTC) // a Friday
	for name, tc := range map[string]struct {
		now             time.Time
		change          func(*route.Service)
		active, inSight bool
	}{
		"before":            {during.Add(-11 * time.Hour), nil, false, false},
		"during":            {during, nil, true, true},
		"after":             {during.Add(time.Second), nil, false, false},
		"after, with a pod": {during.Add(time.Second), awake, false, true},
		"one kept asleep": {
			during, func(s *route.Service) { s.Progress.Paused = &api.Pause{Why: "its owner says so", Kept: true} }, false, false,
		},
		"a paused one": {during, func(s *route.Service) { s.Progress.Paused = &api.Pause{Why: "its owner says so"} }, true, false},
		"no window":    {during, func(s *route.Service) { s.Routes.Awake = "" }, false, false},
		"never":        {during, func(s *route.Service) { s.Routes.Awake = "never" }, false, false},
		"always":       {during.Add(time.Second), func(s *route.Service) { s.Routes.Awake = "always" }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, l := newTable(nil)
				s := keptAwake(text)
				if tc.change != nil {
					tc.change(&s)
				}
				table.SetService(s)
				advance(time.Hour)
				a := &Activity{Peers: newFakePeers(), Now: func() time.Time { return tc.now }}
				wantActivity(t, a, l.route.Target(), "it", tc.active, tc.inSight, false)
			})
		})
	}
}

// KEDA's stream says that an app is active when a window begins, and that it is not when the window has ended.
func TestStreamWakesForAWindow(t *testing.T) {
	table, _ := newTable(nil)
	table.SetService(keptAwake("Mon-Fri 08:00-18:30 Asia/Seoul"))
	begin := time.Date(2026, 3, 6, 8, 0, 0, 0, time.FixedZone("", 9*60*60))
	var now atomic.Pointer[time.Time]
	set := func(t time.Time) { now.Store(&t) }
	set(begin.Add(-time.Second))
	s, client := serve(t, ServerOptions{
		Target: table.Target, Activity: &Activity{Peers: newFakePeers(), Now: func() time.Time { return *now.Load() }},
		Repeat: 10 * time.Millisecond,
	})
	defer s.Close()
	stream, err := client.StreamIsActive(t.Context(), ref(api.MetadataWorkload, "Deployment/web"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		at   time.Time
		want bool
	}{{*now.Load(), false}, {begin, true}, {begin.Add(630 * time.Minute), false}, {begin.Add(72 * time.Hour), true}} {
		set(step.at)
		if got, err := stream.Recv(); err != nil || got.GetResult() != step.want {
			t.Errorf("at %s: active is %v, %v", step.at, got, err)
		}
	}
}
