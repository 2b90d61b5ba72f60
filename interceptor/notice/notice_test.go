// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package notice

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// quiet stands in for the rest of the interceptor.
type quiet struct{}

func (quiet) Open(*route.Route)                              {}
func (quiet) Close(*route.Route)                             {}
func (quiet) Wake(*route.Route, *route.Target, *route.Visit) {}
func (quiet) Held(time.Duration)                             {}
func (quiet) Answered(int)                                   {}
func (quiet) Ignored()                                       {}
func (quiet) Woken()                                         {}
func (quiet) ColdStart(time.Duration)                        {}

// world is a Reporter with its Table in a bubble.
type world struct {
	t       *testing.T
	table   *route.Table
	notices []Notice
}

func (w *world) Notice(n Notice) { w.notices = append(w.notices, n) }

func newWorld(t *testing.T, peers int) *world {
	t.Helper()
	w := &world{t: t, table: route.NewTable(route.TableOptions{
		Listeners: quiet{}, Waker: quiet{},
		RouteMetrics:  func(string, string) route.Metrics { return quiet{} },
		TargetMetrics: func(route.Key) route.TargetMetrics { return quiet{} },
	})}
	r := NewReporter(Options{Events: w, Routes: w.table.Routes, Peers: func() int { return peers }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

// set sets a Service with one pod, or with none if it is asleep.
func (w *world) set(name string, cooldown time.Duration, awake bool, change func(*api.Routes)) *route.Route {
	w.t.Helper()
	s := route.Service{
		Namespace: "shop", Name: name, Endpoints: map[string][]string{},
		Routes: api.Routes{
			Service: name, ServiceUID: "uid-" + name, Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "u"},
			Ports:    []api.Port{{Port: 80, Listen: 10000 + int32(len(name)), Protocol: api.ProtocolAuto}},
			Cooldown: api.Duration(cooldown), HoldTimeout: api.Duration(5 * time.Minute),
		},
	}
	if awake {
		s.Pods, s.Endpoints[""] = 1, []string{"10.0.0.1:80"}
	}
	if change != nil {
		change(&s.Routes)
	}
	w.table.SetService(s)
	for _, r := range w.table.Routes() {
		if r.Service == name {
			return r
		}
	}
	w.t.Fatalf("no route of %s", name)
	return nil
}

// ask sends requests from agent for a while.
func ask(r *route.Route, period, pause time.Duration, target, agent string) {
	for end := time.Now().Add(period); time.Now().Before(end); {
		once(r, "GET", target, agent)
		advance(pause)
	}
}

func once(r *route.Route, method, target, agent string) {
	release := r.Target().Begin()
	defer release()
	r.See(&route.Sighting{
		Method: []byte(method), Target: []byte(target), Agent: []byte(agent), Client: netip.MustParseAddr("10.1.0.9"),
	}).End()
}

// advance advances the bubble's clock by d.
func advance(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a bubble this takes no time
	synctest.Wait()
}

func TestKeptAwake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		r := w.set("web", 5*time.Minute, true, nil)
		other := w.set("admin", 5*time.Minute, true, nil)
		for range 4 {
			once(other, "POST", "/login?password=secret", "Mozilla/5.0")
		}
		ask(r, time.Hour+time.Second, 2*time.Second, "/api/tick?token=secret", "python-requests/2.32")
		advance(29 * time.Second)
		if len(w.notices) != 1 {
			t.Fatalf("%d notices", len(w.notices))
		}
		n := w.notices[0]
		want := "Deployment/web has not slept for 1h. Last seen, 2s ago: GET /api/tick from 10.1.0.9 (python-requests/2.32). " +
			"Most frequent: the same, 1,800 of 1,804 requests in 1h, one every 2s (as one of 2 interceptors saw it). " +
			"If these are not visits, ignore them with annotation scale-to-zero/ignore-paths: /api/tick or scale-to-zero/ignore-user-agents: " +
			"python-requests/"
		if n.Message != want {
			t.Errorf("got  %s\nwant %s", n.Message, want)
		}
		if n.Service != "web" || n.ServiceUID != "uid-web" || n.Reason != KeptAwake || n.Warning || n.Workload.Name != "web" ||
			!strings.HasPrefix(n.ID, "kept-awake-") {
			t.Errorf("%+v", n)
		}
		// The notice is repeated every hour, with what was seen since, but not once the app sleeps.
		ask(r, 59*time.Minute, time.Minute, "/", "curl/8")
		if len(w.notices) != 1 {
			t.Fatalf("%d notices within an hour", len(w.notices))
		}
		ask(r, 2*time.Minute, time.Minute, "/", "curl/8")
		if len(w.notices) != 2 || !strings.Contains(w.notices[1].Message, "not slept for 2h") || w.notices[1].ID == n.ID {
			t.Fatalf("%+v", w.notices)
		}
		w.set("web", 5*time.Minute, false, nil)
		w.set("admin", 5*time.Minute, false, nil)
		advance(time.Minute)
		r = w.set("web", 5*time.Minute, true, nil)
		w.set("admin", 5*time.Minute, true, nil)
		ask(r, 59*time.Minute, time.Minute, "/", "curl/8")
		if len(w.notices) != 2 {
			t.Errorf("%d notices less than an hour after a sleep", len(w.notices))
		}
	})
}

func TestNotKeptAwake(t *testing.T) {
	for name, tc := range map[string]struct {
		cooldown time.Duration
		change   func(*api.Routes)
		pause    time.Duration
		lasts    time.Duration
		want     int
	}{
		"for long enough":           {cooldown: 5 * time.Minute, pause: time.Minute, lasts: 61 * time.Minute, want: 1},
		"not for long enough":       {cooldown: 5 * time.Minute, pause: time.Minute, lasts: 59 * time.Minute},
		"a short cool-down":         {cooldown: time.Second, pause: 500 * time.Millisecond, lasts: 9 * time.Minute},
		"a short cool-down, longer": {cooldown: time.Second, pause: 500 * time.Millisecond, lasts: 11 * time.Minute, want: 1},
		"by nobody's requests":      {cooldown: 5 * time.Minute, pause: 3 * time.Hour, lasts: 3 * time.Hour},
		"it is never to sleep": {
			cooldown: 5 * time.Minute, pause: time.Minute, lasts: 2 * time.Hour, change: func(r *api.Routes) { r.NeverSleeps = true },
		},
		"its owner keeps it awake": {
			cooldown: 5 * time.Minute, pause: time.Minute, lasts: 2 * time.Hour, change: func(r *api.Routes) { r.Awake = "always" },
		},
		"its owner kept it awake": { // the bubble begins at midnight
			cooldown: 5 * time.Minute, pause: time.Minute, lasts: 89 * time.Minute,
			change: func(r *api.Routes) { r.Awake = "Mon-Sun 00:00-00:30 UTC" },
		},
		"its owner kept it awake, but not so long": {
			cooldown: 5 * time.Minute, pause: time.Minute, lasts: 91 * time.Minute, want: 1,
			change: func(r *api.Routes) { r.Awake = "Mon-Sun 00:00-00:30 UTC" },
		},
		"it is being restored": {
			cooldown: 5 * time.Minute, pause: time.Minute, lasts: 2 * time.Hour, change: func(r *api.Routes) { r.Retiring = true },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 0)
				r := w.set("web", tc.cooldown, true, tc.change)
				ask(r, tc.lasts, tc.pause, "/", "curl/8")
				if len(w.notices) != tc.want {
					t.Errorf("%d notices, want %d: %+v", len(w.notices), tc.want, w.notices)
				}
			})
		})
	}
}

// The notice names whatever keeps an app awake, including a request that stays open and bytes on a connection.
func TestKeptAwakeBy(t *testing.T) {
	client := netip.MustParseAddr("2001:db8::7")
	for name, tc := range map[string]struct {
		sighting route.Sighting
		busy     time.Duration
		want     []string
	}{
		"an event stream": {
			sighting: route.Sighting{Method: []byte("GET"), Target: []byte("/events"), Client: client},
			want: []string{
				"Last seen, 1h", "GET /events from 2001:db8::7", "1 of 1 request in 1h, 1 of them open now", "scale-to-zero/ignore-paths: /events",
			},
		},
		"a WebSocket": {
			sighting: route.Sighting{
				Method: []byte("GET"), Target: []byte("/api/live/ws?token=secret"), Agent: []byte("Mozilla/5.0 (X11)"), Client: client,
			},
			busy: 10 * time.Second,
			want: []string{
				"Busiest: the same, whose connection carried bytes and is open", "GET /api/live/... from 2001:db8::7 (Mozilla/5.0 (X11))",
				"ignore-paths: /api/live/*",
			},
		},
		"a connection of bytes": {
			sighting: route.Sighting{Client: client}, busy: 10 * time.Second,
			want: []string{"a connection from 2001:db8::7", "carried bytes and is open", "A connection counts while bytes pass"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 0)
				r := w.set("web", 5*time.Minute, true, nil)
				release := r.Target().Begin()
				seen := r.See(&tc.sighting)
				for end := time.Now().Add(61 * time.Minute); time.Now().Before(end); advance(10 * time.Second) {
					if tc.busy > 0 {
						seen.Busy()
					}
				}
				seen.End()
				release()
				if len(w.notices) != 1 {
					t.Fatalf("%+v", w.notices)
				}
				for _, want := range append(tc.want, "Deployment/web has not slept for 1h") {
					if got := w.notices[0].Message; !strings.Contains(got, want) || strings.Contains(got, "secret") {
						t.Errorf("%q does not say %q", got, want)
					}
				}
			})
		})
	}
}

// Nothing that a client says about itself makes a message too long or malformed.
func TestMessagesAreSafe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		r := w.set("web", 5*time.Minute, true, nil)
		ask(r, 61*time.Minute, time.Minute, "/\x01\u202e"+strings.Repeat("é", 400), strings.Repeat("\x1b[31m", 400))
		GaveUp(w)(r, route.GaveUp{
			Clients: 3, After: time.Minute, HoldTimeout: 5 * time.Minute, StartID: "s1",
			Last: route.Visit{Method: "GET", Path: "/a?secret\n" + strings.Repeat("x", 900), Agent: strings.Repeat("y", 900)},
		})
		if len(w.notices) != 2 {
			t.Fatalf("%+v", w.notices)
		}
		for _, n := range w.notices {
			if len(n.Message) > 1024 || strings.ContainsAny(n.Message, "\x00\x01\x1b\n\u202e") || strings.Contains(n.Message, "secret") {
				t.Errorf("%d bytes: %q", len(n.Message), n.Message)
			}
		}
		if n := w.notices[1]; !n.Warning || n.ID != "gave-up-s1" || n.Reason != ClientsGaveUp ||
			!strings.HasPrefix(n.Message,
				"3 requests for Service web gave up after about 1m while Deployment/web was starting; they would have been held for 5m.") {
			t.Errorf("%+v", n)
		}
	})
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 3 * time.Millisecond: "3ms", 59*time.Second + 600*time.Millisecond: "1m", time.Second: "1s", 60 * time.Second: "1m",
		61 * time.Second: "1m",
		90 * time.Second: "2m", time.Hour: "1h", 61 * time.Minute: "1h1m", 25 * time.Hour: "25h",
	} {
		if got := short(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
