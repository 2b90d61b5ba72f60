// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/notice"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// A verdict counts for the polls of nearly a minute, unless there was a request, another run of the app, or another check.
func TestVerdictLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.wants("at the end of the cool-down", false, 1)
		advance(30 * time.Second)
		r.set(says200(`{"busyExecutors": 2}`))
		r.wants("KEDA's second poll", false, 0)
		advance(30 * time.Second)
		r.wants("after a minute", true, 1)
		r.set(says200(`{"busyExecutors": 0}`))
		for range 5 {
			advance(10 * time.Second)
			r.wants("within a minute", true, 0)
		}
		advance(10 * time.Second)
		r.wants("after another minute", false, 1)

		r.set(says200(`{"busyExecutors": 2}`))
		advance(20 * time.Second)
		if got, asks := r.busy(19*time.Second), r.asks(); !got || asks != 1 {
			t.Errorf("after a request: %t, %d asked", got, asks)
		}
		r.table.SetService(jenkins())
		r.table.SetService(jenkins("10.0.0.2:8080"))
		r.wants("another pod after none", true, 1)
		changed := jenkins("10.0.0.2:8080")
		changed.Routes.Busy.Request.When = "json.busyExecutors > 5"
		r.table.SetService(changed)
		r.wants("another expression", false, 1)
		changed.SleepID = "s2"
		r.table.SetService(changed)
		r.wants("the same", false, 0)
	})
}

// A workload that has no ready pod, never sleeps, or has no check is not asked, and so does not count as busy.
func TestNotAsked(t *testing.T) {
	for name, change := range map[string]func(*route.Service){
		"asleep":       func(s *route.Service) { s.Pods, s.Endpoints = 0, nil },
		"not ready":    func(s *route.Service) { s.Endpoints = nil },
		"never sleeps": func(s *route.Service) { s.Routes.NeverSleeps = true },
		"no check":     func(s *route.Service) { s.Routes.Busy = nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.set(says200(`{"busyExecutors": 2}`))
			s := jenkins("10.0.0.1:8080")
			change(&s)
			r.table.SetService(s)
			r.wants(name, false, 0)
			if r.checker.Last(r.target()) {
				t.Error("it counts as busy without being asked")
			}
		})
	}
}

func TestLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		last := func(what string, want bool) {
			t.Helper()
			if got := r.checker.Last(r.target()); got != want || r.asks() > 0 {
				t.Errorf("%s: %t", what, got)
			}
		}
		last("not known", true)
		r.wants("idle", false, 1)
		last("idle", false)
		advance(time.Hour)
		last("idle long ago", false)
		r.set(says200(`{"busyExecutors": 2}`))
		r.wants("busy", true, 1)
		last("busy", true)
		advance(time.Hour)
		last("busy long ago", true)
		r.set(says200(`{"busyExecutors": 0}`))
		r.wants("idle again", false, 1)
		r.table.SetService(jenkins())
		last("asleep", false)
		r.table.SetService(jenkins("10.0.0.2:8080"))
		last("awake again", true)
	})
}

// Polls at the same time share one check, and one whose caller gives up counts as busy.
func TestOneCheckAtATime(t *testing.T) {
	r := newRig(t)
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	r.set(func(req *http.Request) (*http.Response, error) {
		arrived <- struct{}{}
		<-release
		return says200(`{"busyExecutors": 0}`)(req)
	})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if r.busy(idle) {
				t.Error("it is busy")
			}
		})
	}
	<-arrived
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if !r.checker.Busy(gone, r.target(), idle) {
		t.Error("it is not busy, which nobody knows yet")
	}
	close(release)
	all.Wait()
	if n := r.asks(); n != 1 {
		t.Errorf("the app was asked %d times", n)
	}
}

// Two failures in a row are forgiven. The third is told once, until a check succeeds again.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		answer := func(status int, body string) func(*http.Request) (*http.Response, error) {
			return func(req *http.Request) (*http.Response, error) {
				resp, err := says200(body)(req)
				resp.StatusCode = status
				return resp, err
			}
		}
		for range 2 {
			r.set(answer(403, "<html>"))
			for i := 1; i <= 5; i++ {
				r.wants(fmt.Sprintf("failure %d", i), i < 3, 1)
				advance(time.Minute)
			}
			want := []notice.Notice{{
				Namespace: "ci", Service: "jenkins", ServiceUID: "u1", Workload: jenkins().Routes.Workload,
				Reason: "BusyCheckFailed", Warning: true,
				Message: "It was unclear 3 times in a row whether Deployment/jenkins is busy: GET /computer/api/json at 10.0.0.1:8080: " +
					`the answer is 403 Forbidden, by which "json.busyExecutors > 0" cannot be judged: ` + "the body of the answer is not JSON: " +
					"invalid character '<' looking for beginning of value. It counts as not busy from now on, and sleeps even while it works. " +
					"Correct annotations scale-to-zero/busy and scale-to-zero/busy-when, or remove them. The app has to answer without a login",
			}}
			got := r.told()
			for i := range got {
				if !strings.HasPrefix(got[i].ID, "busy-check-failed-s1-") {
					t.Errorf("its ID is %s", got[i].ID)
				}
				got[i].ID = ""
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			r.set(answer(200, `{"busyExecutors": 0}`))
			r.wants("success", false, 1)
			advance(time.Minute)
		}
		r.set(answer(500, ""))
		r.wants("a failure", true, 1)
		advance(time.Minute)
		r.table.SetService(jenkins())
		r.table.SetService(jenkins("10.0.0.2:8080"))
		for i := 1; i <= 3; i++ {
			r.wants(fmt.Sprintf("failure %d of the next pod", i), i < 3, 1)
			advance(time.Minute)
		}
	})
}

// What keeps an app up is told once, until the app is idle. The event has the same name at all interceptors, and another one for the
// next time without requests.
func TestKeptBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.set(says200(`{"busyExecutors": 2}`))
		ids := map[string]bool{}
		for range 2 {
			for range 3 {
				r.wants("busy", true, 1)
				advance(time.Minute)
			}
			got := r.told()
			const message = "Deployment/jenkins has no requests but is busy: GET /computer/api/json says json.busyExecutors > 0. " +
				"It stays up until that is over"
			if len(got) != 1 || got[0].Reason != "KeptBusy" || got[0].Warning || got[0].Message != message {
				t.Fatalf("told %+v", got)
			}
			ids[got[0].ID] = true
			r.set(says200(`{"busyExecutors": 0}`))
			r.wants("idle", false, 1)
			advance(time.Hour)
			r.set(says200(`{"busyExecutors": 2}`))
		}
		if len(ids) != 2 {
			t.Errorf("the events are %v", ids)
		}
		advance(30 * time.Second)
		if a, b := periodOf(time.Minute), periodOf(time.Minute+time.Second); a != b || periodOf(math.MaxInt64) != "0" {
			t.Errorf("times without requests are called %s and %s", a, b)
		}
	})
}

// All ready pods are asked, up to ten. One that is busy counts for all.
func TestPods(t *testing.T) {
	addrs := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("10.0.0.%d:8080", i+1))
		}
		return all
	}
	for name, tc := range map[string]struct {
		pods         int
		busy, broken string // the pod, if any
		want         bool
		asked        int
		fails        bool
	}{
		"none busy":             {3, "", "", false, 3, false},
		"one busy":              {3, "10.0.0.2:8080", "", true, 0, false},
		"one busy, one broken":  {2, "10.0.0.2:8080", "10.0.0.1:8080", true, 0, false},
		"one broken":            {3, "", "10.0.0.3:8080", true, 3, true},
		"more than there is to": {25, "", "", false, 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.table.SetService(jenkins(addrs(tc.pods)...))
			r.set(func(req *http.Request) (*http.Response, error) {
				switch req.URL.Host {
				case tc.broken:
					return nil, errors.New("connection refused")
				case tc.busy:
					return says200(`{"busyExecutors": 1}`)(req)
				default:
					return says200(`{"busyExecutors": 0}`)(req)
				}
			})
			for i := range 3 {
				got := r.busy(time.Nanosecond) // there are requests all the time, so each poll asks
				if want := tc.want && (!tc.fails || i < 2); got != want {
					t.Errorf("poll %d: %t", i, got)
				}
				if n := r.asks(); tc.asked > 0 && n != tc.asked {
					t.Errorf("poll %d: %d pods were asked", i, n)
				}
			}
		})
	}
}

// A check that this interceptor has no room for counts as busy, and not as failed.
func TestCrowded(t *testing.T) {
	for name, fill := range map[string]func(*client){
		"asking": func(c *client) {
			for range maxAsked {
				c.asking <- struct{}{}
			}
		},
		"evaluating": func(c *client) { c.evaluating <- struct{}{} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				fill(r.checker.client)
				for range 5 {
					if !r.busy(idle) {
						t.Error("it is not busy")
					}
				}
				if told := r.told(); len(told) > 0 {
					t.Errorf("told %+v", told)
				}
				r.checker.client.asking, r.checker.client.evaluating = make(chan struct{}, 1), make(chan struct{}, 1)
				r.asks()
				r.wants("with room", false, 1)
			})
		})
	}
}

// After Close, nothing is asked any more, and whoever waits gets an answer that lets no app sleep.
func TestClose(t *testing.T) {
	r := newRig(t)
	arrived := make(chan struct{})
	r.set(func(req *http.Request) (*http.Response, error) {
		close(arrived)
		<-req.Context().Done()
		return nil, req.Context().Err()
	})
	done := make(chan bool)
	go func() { done <- r.busy(idle) }()
	<-arrived
	r.checker.Close()
	if !<-done {
		t.Error("it is not busy")
	}
	r.asks()
	r.wants("afterwards", true, 0)
	if told := r.told(); len(told) > 0 {
		t.Errorf("told %+v", told)
	}
}

// States of workloads that are gone are forgotten.
func TestForgets(t *testing.T) {
	r := newRig(t)
	r.wants("the first", false, 1)
	r.table.Close()
	r.checker.options.Target = func(route.Key) *route.Target { return nil }
	other := newRig(t)
	r.checker.Last(other.target())
	if n := len(r.checker.states); n != 1 {
		t.Errorf("it knows %d workloads", n)
	}
}

func TestCPU(t *testing.T) {
	const (
		kept  = "KeptBusy: Deployment/jenkins has no requests but is busy: "
		more  = " CPU, more than the 200m of annotation scale-to-zero/busy-cpu. It stays up until that is over"
		fails = "BusyCheckFailed: It was unclear 3 times in a row whether Deployment/jenkins is busy: reading the CPU usage of its pods: "
		so    = ". It counts as not busy from now on, and sleeps even while it works. See that metrics-server works, or remove annotation " +
			"scale-to-zero/busy-cpu"
		unknown = "BusyCPUUnknown: Annotation scale-to-zero/busy-cpu has no effect on Deployment/jenkins: there are no metrics of pods: " +
			"the cluster has no API metrics.k8s.io/v1beta1. So it sleeps even while it uses much CPU. Install metrics-server " +
			"(https://github.com/kubernetes-sigs/metrics-server), or remove the annotation"
	)
	noAPI := fmt.Errorf("%w: the cluster has no API metrics.k8s.io/v1beta1", ErrNoMetrics)
	for name, tc := range map[string]struct {
		milli int64
		pods  int
		err   error
		want  []bool // the verdicts of polls
		told  string
	}{
		"little":    {200, 2, nil, []bool{false, false}, ""},
		"much":      {201, 2, nil, []bool{true, true}, kept + "its 2 pods use 201m" + more},
		"one pod":   {1500, 1, nil, []bool{true}, kept + "its pod uses 1500m" + more},
		"not known": {0, 0, nil, []bool{true, true, false, false}, fails + "there are no metrics of pods with the labels app=jenkins" + so},
		"fails":     {0, 0, errors.New("no route to host"), []bool{true, true, false}, fails + "no route to host" + so},
		"no API":    {0, 0, noAPI, []bool{false, false, false}, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			s := jenkins("10.0.0.1:8080")
			s.Routes.Busy = &api.Busy{CPU: 200, Pods: "app=jenkins"}
			r.table.SetService(s)
			r.cpu = func() (int64, int, error) { return tc.milli, tc.pods, tc.err }
			for i, want := range tc.want {
				if got := r.busy(time.Nanosecond); got != want {
					t.Errorf("poll %d: %t", i, got)
				}
			}
			var told []string
			for _, n := range r.told() {
				told = append(told, n.Reason+": "+n.Message)
			}
			if got := strings.Join(told, "\n"); got != tc.told {
				t.Errorf("told\n%s\nwant\n%s", got, tc.told)
			}
			if r.asks() > 0 {
				t.Error("the app was asked")
			}
		})
	}
}

// Either of two checks is enough, and so is that of either of two Services.
func TestTwoChecks(t *testing.T) {
	r := newRig(t)
	use := int64(0)
	r.cpu = func() (int64, int, error) { return use, 1, nil }
	s := jenkins("10.0.0.1:8080")
	s.Routes.Busy.CPU, s.Routes.Busy.Pods = 200, "app=jenkins"
	r.table.SetService(s)
	poll := func(what string, want bool) {
		t.Helper()
		if got := r.busy(time.Nanosecond); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	poll("neither", false)
	use = 300
	poll("CPU", true)
	use = 0
	r.set(says200(`{"busyExecutors": 2}`))
	poll("request", true)
	r.set(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
	use = 300
	for range 4 {
		poll("CPU, and the request fails", true)
	}
	use = 0
	second := jenkins("10.0.0.1:9090")
	second.Name, second.Routes.Service, second.Routes.Ports[0].Listen = "agents", "agents", 10001
	r.table.SetService(second)
	r.set(func(req *http.Request) (*http.Response, error) {
		if req.Host == "agents.ci" {
			return says200(`{"busyExecutors": 2}`)(req)
		}
		return says200(`{"busyExecutors": 0}`)(req)
	})
	poll("the second Service", true)
}
