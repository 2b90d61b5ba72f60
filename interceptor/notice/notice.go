// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package notice tells the owner of an app what only the interceptors see: who keeps the app awake, and that clients give up before
// it is ready.
package notice

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

const (
	// minAwake and cooldowns say how long an app has to be awake before a notice: minAwake or that many cool-downs, whichever is longer.
	minAwake  = 10 * time.Minute
	cooldowns = 12
	// every is the shortest time between two notices about a workload. Kubernetes forgets events after an hour.
	every = time.Hour
	// tick is how often the workloads are checked.
	tick = 30 * time.Second
)

// Reasons of the events.
const (
	KeptAwake     = "KeptAwake"
	ClientsGaveUp = "ClientsGaveUp"
	MemoryRefused = "MemoryRefused"
)

// Notice is an event about a Service and its workload.
type Notice struct {
	Namespace, Service, ServiceUID string
	Workload                       api.Workload
	Reason                         string
	Warning                        bool
	// ID is the same at all interceptors that report the same.
	ID string
	// Message is safe to show: bounded, printable, without query strings.
	Message string
}

// Events publishes notices.
type Events interface {
	// Notice must not block.
	Notice(Notice)
}

// Options configure a Reporter.
type Options struct {
	// Events publishes the notices; nil publishes none.
	Events Events
	// Routes returns all routes.
	Routes func() []*route.Route
	// Peers returns the number of the other interceptors.
	Peers func() int
}

// Reporter reports the workloads that do not sleep.
type Reporter struct {
	options Options
	told    map[route.Key]time.Time // when a notice was last published
}

// NewReporter returns a Reporter.
func NewReporter(o Options) *Reporter { return &Reporter{options: o, told: map[route.Key]time.Time{}} }

// Run reports until ctx is done.
func (r *Reporter) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.look(time.Now())
		case <-ctx.Done():
			return nil
		}
	}
}

// look reports the workloads that requests at this interceptor have kept awake for long.
func (r *Reporter) look(now time.Time) {
	byTarget := map[*route.Target][]*route.Route{}
	for _, one := range r.options.Routes() {
		byTarget[one.Target()] = append(byTarget[one.Target()], one)
	}
	told := map[route.Key]time.Time{}
	for target, routes := range byTarget {
		last, known := r.told[target.Key]
		switch {
		case !target.HasPods():
			for _, one := range routes {
				one.TakeSources() // another source may have woken it
			}
		case target.KeptAwake(now): // requests may keep it awake only later
			told[target.Key] = now
			for _, one := range routes {
				one.TakeSources()
			}
		case known && now.Sub(last) < every:
			told[target.Key] = last
		case !target.Sleeps(), target.Retiring(), target.Up() < max(minAwake, cooldowns*target.Cooldown()), target.Idle() >= target.Cooldown():
		default:
			told[target.Key] = now
			r.report(target, routes, now)
		}
	}
	r.told = told
}

// report publishes who has kept target awake, on the Service with the busiest source.
func (r *Reporter) report(target *route.Target, routes []*route.Route, now time.Time) {
	var all route.Sources
	type from struct {
		route.Source
		route *route.Route
	}
	var each []from
	for _, one := range routes {
		s := one.TakeSources()
		all.Period, all.All = max(all.Period, s.Period), all.All+s.All
		for _, source := range s.Each {
			each = append(each, from{source, one})
		}
	}
	if len(each) == 0 {
		return
	}
	slices.SortStableFunc(each, func(a, b from) int {
		return cmp.Or(cmp.Compare(b.Requests+b.Busy, a.Requests+a.Busy), cmp.Compare(a.Last, b.Last))
	})
	latest := slices.MinFunc(each, func(a, b from) int { return cmp.Compare(a.Last, b.Last) })
	owner := each[0].route
	workload := target.Workload()
	publish(r.options.Events, Notice{
		Namespace: owner.Namespace, Service: owner.Service, ServiceUID: owner.ServiceUID, Workload: workload,
		Reason: KeptAwake, ID: "kept-awake-" + strconv.FormatInt(now.Unix()/int64(every/time.Second), 36),
		Message: keptAwake(workload, target.Up(), all, each[0].Source, latest.Source, r.options.Peers()),
	})
}

func publish(events Events, n Notice) {
	if events != nil {
		events.Notice(n)
	}
}

// keptAwake returns the message of the notice.
func keptAwake(w api.Workload, up time.Duration, all route.Sources, top, latest route.Source, peers int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s has not slept for %s. Last seen, %s ago: %s.", w, short(up), short(latest.Last), source(latest))
	who := source(top)
	if who == source(latest) {
		who = "the same"
	}
	switch {
	case top.Busy > top.Requests:
		fmt.Fprintf(&b, " Busiest: %s, whose connection carried bytes", who)
		if top.Open > 0 {
			b.WriteString(" and is open")
		}
	default:
		fmt.Fprintf(&b, " Most frequent: %s, %s of %s in %s", who, count(top.Requests), requests(all.All), short(all.Period))
		if top.Requests > 1 {
			fmt.Fprintf(&b, ", one every %s", short(all.Period/time.Duration(top.Requests)))
		}
		if top.Open > 0 {
			fmt.Fprintf(&b, ", %d of them open now", top.Open)
		}
	}
	if peers > 0 {
		fmt.Fprintf(&b, " (as one of %d interceptors saw it)", peers+1)
	}
	b.WriteString(". ")
	b.WriteString(advice(top))
	return b.String()
}

// source describes a Source in one line.
func source(s route.Source) string {
	v := s.Visit
	v.Path = scaler.PublicPath(v.Path)
	if s.More {
		v.Path += "..."
	}
	return scaler.Describe(&v)
}

// advice says how to ignore the requests of a source.
func advice(s route.Source) string {
	if s.Visit.Method == "" {
		return "A connection counts while bytes pass; have the client close it, or send less often than the cool-down"
	}
	path := s.Visit.Path
	secret := scaler.PublicPath(path) != path
	if s.More {
		path = strings.TrimSuffix(path, "/") + "/*"
	}
	var ways []string
	if !secret && api.IsIgnorePath(path) {
		ways = append(ways, "scale-to-zero/ignore-paths: "+path)
	}
	agent, _, _ := strings.Cut(s.Visit.Agent, " ")
	agent, _, _ = strings.Cut(agent, "/")
	looks := s.Visit.Method == "GET" || s.Visit.Method == "HEAD" // other methods count even if the agent is ignored
	if looks && api.IsIgnoreAgent(agent) && agent != "Mozilla" {
		ways = append(ways, "scale-to-zero/ignore-user-agents: "+agent+"/")
	}
	if len(ways) == 0 {
		return "Annotations scale-to-zero/ignore-paths and scale-to-zero/ignore-user-agents leave requests out"
	}
	return "If these are not visits, ignore them with annotation " + strings.Join(ways, " or ")
}

// GaveUp returns a function that reports clients that gave up while their requests were held. events may be nil.
func GaveUp(events Events) func(*route.Route, route.GaveUp) {
	return func(one *route.Route, g route.GaveUp) {
		w := one.Target().Workload()
		publish(events, Notice{
			Namespace: one.Namespace, Service: one.Service, ServiceUID: one.ServiceUID, Workload: w,
			Reason: ClientsGaveUp, Warning: true, ID: "gave-up-" + g.StartID, Message: gaveUp(one.Service, w, g),
		})
	}
}

// gaveUp returns the message of that notice.
func gaveUp(service string, w api.Workload, g route.GaveUp) string {
	return fmt.Sprintf("%d requests for Service %s gave up after about %s while %s was starting; they would have been held for %s. "+
		"The last was %s. A time-out of %s of the client, or of a proxy before scale-to-zero, is too short for this app: raise it "+
		"(ingress-nginx: nginx.ingress.kubernetes.io/proxy-read-timeout; "+
		"AWS: idle_timeout.timeout_seconds of alb.ingress.kubernetes.io/load-balancer-attributes; "+
		"GKE: timeoutSec of a BackendConfig; see docs/proxies.md)",
		g.Clients, service, short(g.After), w, short(g.HoldTimeout), scaler.Describe(&g.Last), short(g.After))
}

// MemoryExhausted returns a function that reports that a route's connections or requests are refused, because they use all the memory
// that the interceptor has for one app. events may be nil.
func MemoryExhausted(events Events) func(*route.Route) {
	return func(one *route.Route) {
		now := time.Now()
		publish(events, Notice{
			Namespace: one.Namespace, Service: one.Service, ServiceUID: one.ServiceUID, Workload: one.Target().Workload(),
			Reason: MemoryRefused, Warning: true, ID: "memory-refused-" + strconv.FormatInt(now.Unix()/int64(every/time.Second), 36),
			Message: memoryRefused(one.Service, one.Memory.Used()),
		})
	}
}

// memoryRefused returns the message of that notice.
func memoryRefused(service string, used int64) string {
	return fmt.Sprintf("Connections and requests for Service %s use %s of an interceptor's memory, the most that one app may have there at "+
		"the moment, and more of them are refused. If they are visitors and no attack, give the interceptors more memory (chart value "+
		"interceptor.resources.limits.memory) or run more of them (interceptor.replicas)",
		service, strconv.FormatInt(max(1, used>>20), 10)+" MiB")
}

// requests returns a number of requests as text.
func requests(n int64) string {
	if n == 1 {
		return "1 request"
	}
	return count(n) + " requests"
}

// count returns n with commas between thousands.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// short returns d as precisely as people want it.
func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	if d = d.Round(time.Second); d < time.Minute {
		return d.String()
	}
	d = d.Round(time.Minute)
	if h := d / time.Hour; h > 0 && d%time.Hour == 0 {
		return fmt.Sprintf("%dh", h)
	}
	return strings.TrimSuffix(d.String(), "0s")
}
