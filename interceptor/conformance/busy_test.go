// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/busy"
)

// An app stays up beyond its cool-down while it says that it is busy, and is let go when it is not. Asking it is no visit. KEDA's stream
// never says that it should be woken.
func TestBusyAppStaysUp(t *testing.T) {
	var executors, questions atomic.Int64
	executors.Store(1)
	addr := pod(t, func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() == busy.UserAgent && r.URL.Path == "/computer/api/json" && r.Host == "web.shop" {
			questions.Add(1)
			_, _ = fmt.Fprintf(w, `{"busyExecutors": %d}`, executors.Load())
		}
	})
	b := &board{}
	n := start(t, "a", nil, func(o *interceptor.Options) { o.Notices, o.BusyEvery = b, 50*time.Millisecond })
	listen := freePort(t)
	s := unpublished(service(listen, api.ProtocolAuto, addr))
	s.Routes.Cooldown = api.Duration(time.Second)
	s.Routes.Busy = &api.Busy{Request: &api.BusyRequest{
		Method: http.MethodGet, Path: "/computer/api/json", Port: 80, When: "json.busyExecutors > 0",
	}}
	n.set(s)
	n.synced()
	n.waitReady()
	if code, _ := get(t, url(listen, "/")); code != http.StatusOK {
		t.Fatalf("got %d", code)
	}
	keda, target := n.keda(), n.seen().Target(deployment)
	active := func() bool {
		t.Helper()
		got, err := keda.IsActive(t.Context(), scaledObject())
		if err != nil {
			t.Fatal(err)
		}
		return got.GetResult()
	}
	eventually(t, "without requests for three times the cool-down", func() bool {
		if !active() {
			t.Fatal("it may sleep although it is busy")
		}
		return target.Idle() > 3*time.Duration(s.Routes.Cooldown) && questions.Load() > 2
	})
	if got := b.notices(); len(got) != 1 || got[0].Reason != busy.KeptBusy || got[0].ServiceUID != "u1" {
		t.Errorf("told %+v", got)
	}
	if target.Pending() > 0 || len(n.events()) > 0 {
		t.Errorf("asking counts as %d visits, and woke it: %+v", target.Pending(), n.events())
	}
	executors.Store(0)
	eventually(t, "let go", func() bool { return !active() })
	if active() {
		t.Error("KEDA's second poll gets another answer")
	}

	// Asleep, nobody asks it, and it does not count as busy whatever it would say.
	executors.Store(1)
	asleep := s
	asleep.Pods, asleep.Endpoints, asleep.SleepID = 0, nil, "s2"
	n.set(asleep)
	n.applied()
	before := questions.Load()
	if active() || questions.Load() != before || n.scales() > 0 {
		t.Errorf("a sleeping app was asked or woken: %d questions, scaled %d times", questions.Load()-before, n.scales())
	}
}
