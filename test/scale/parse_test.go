// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"maps"
	"slices"
	"testing"
)

func TestParseRequests(t *testing.T) {
	t.Parallel()
	got := parseRequests(`# HELP apiserver_request_total [STABLE] Counter of apiserver requests
apiserver_request_total{code="200",group="apps",resource="deployments",subresource="scale",verb="PATCH",version="v1"} 3
apiserver_request_total{code="409",group="apps",resource="deployments",subresource="scale",verb="PATCH",version="v1"} 1
apiserver_request_total{code="200",group="",resource="services",subresource="",verb="LIST",version="v1"} 1.5e+03
apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/metrics",verb="GET",version=""} 7
apiserver_request_terminations_total{code="200",resource="services",verb="LIST"} 9
`)
	if want := (apiRequests{"patch deployments/scale": 4, "list services": 1500}); !maps.Equal(got, want) {
		t.Errorf("requests are %v, want %v", got, want)
	}
	if got.total() != 1504 || got.writes() != 4 {
		t.Errorf("total %v, writes %v", got.total(), got.writes())
	}
	since := got.since(apiRequests{"patch deployments/scale": 4, "list services": 1000})
	if want := (apiRequests{"list services": 500}); !maps.Equal(since, want) {
		t.Errorf("since then are %v, want %v", since, want)
	}
	if want := []string{"list services", "patch deployments/scale"}; !slices.Equal(got.often(), want) {
		t.Errorf("in order %v, want %v", got.often(), want)
	}
}

func TestParseAudit(t *testing.T) {
	t.Parallel()
	log := `{"verb":"patch","user":{"username":"system:serviceaccount:scale-to-zero:scale-to-zero-interceptor"},` +
		`"objectRef":{"resource":"deployments","namespace":"a","name":"app","subresource":"scale"},"responseStatus":{"code":200},` +
		`"requestReceivedTimestamp":"2026-11-28T08:00:00.123456Z"}
{"verb":"update","user":{"username":"system:serviceaccount:keda:keda-operator"},"objectRef":{"resource":"leases","namespace":"keda"}}
{"verb":"pat`
	events, rest, err := parseAudit([]byte(log))
	if err != nil || len(events) != 2 || string(rest) != `{"verb":"pat` {
		t.Fatalf("%d events, rest %q, error %v", len(events), rest, err)
	}
	e := events[0]
	if namespace, name := e.account(); namespace != product || name != "scale-to-zero-interceptor" {
		t.Errorf("the account is %s/%s", namespace, name)
	}
	if !e.scales() || e.key() != "a/app" || e.what() != "patch deployments/scale" || e.RequestReceivedTimestamp.Nanosecond() != 123456000 {
		t.Errorf("the event is %+v", e)
	}
	if events[1].scales() {
		t.Error("an update of a lease scales")
	}
	if got := ours(events); !maps.Equal(got, apiRequests{"patch deployments/scale": 1}) {
		t.Errorf("ours are %v", got)
	}
	if got := appWrites(events); got != 1 {
		t.Errorf("there are %v writes for apps", got)
	}
	if _, _, err := parseAudit([]byte("no JSON\n")); err == nil {
		t.Error("a line that is no JSON is accepted")
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	scale := func(name string, second, code int) (e auditEvent) {
		e.Verb, e.ResponseStatus.Code, e.RequestReceivedTimestamp = "patch", code, at(second)
		e.ObjectRef.Resource, e.ObjectRef.Subresource, e.ObjectRef.Namespace, e.ObjectRef.Name = "deployments", "scale", "ns", name
		return e
	}
	a, b := &app{namespace: "ns", name: "a"}, &app{namespace: "ns", name: "b"}
	events := []auditEvent{scale("a", 1, 409), scale("a", 3, 200), scale("a", 2, 200), scale("b", 5, 200)}
	visits := []visit{{app: a}, {app: b}}
	if err := match(visits, events); err != nil {
		t.Fatal(err)
	}
	if !visits[0].scaled.Equal(at(2)) || !visits[1].scaled.Equal(at(5)) {
		t.Errorf("scaled at %v and %v", visits[0].scaled, visits[1].scaled)
	}
	if err := match(visits, events[:3]); err == nil {
		t.Error("an app that nobody has scaled is no error")
	}
}

func TestResourceOf(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"/registry/services/specs/ns/app":             "services/specs",
		"/registry/keda.sh/scaledobjects/ns/app":      "keda.sh/scaledobjects",
		"/registry/deployments/ns/app":                "deployments",
		"/registry/deployments/other/app":             "",
		"/registry/namespaces/ns":                     "",
		"/registry/events/ns/app.18":                  "",
		"/registry/pods/ns/app-1":                     "",
		"/registry/apiregistration.k8s.io/ns/x/extra": "",
	} {
		if got := resourceOf(key, "ns"); got != want {
			t.Errorf("the resource of %s is %q, want %q", key, got, want)
		}
	}
}

func TestParseMemory(t *testing.T) {
	t.Parallel()
	got, err := parseMemory("VmRSS:\t  99 kB\nRssAnon:\t   1024 kB\nRssFile:\t 5 kB\n")
	if err != nil || got != 1<<20 {
		t.Errorf("memory is %v, %v", got, err)
	}
	if _, err := parseMemory("VmRSS:\t  99 kB\n"); err == nil {
		t.Error("a text without RssAnon is accepted")
	}
}

func TestSumBytes(t *testing.T) {
	t.Parallel()
	out := "0 0 10.0.0.1:9443 10.0.0.2:4 cubic rto:201 bytes_sent:100 bytes_retrans:7 bytes_acked:100 bytes_received:20 segs_out:3\n" +
		"0 0 10.0.0.1:5 10.0.0.2:9443 cubic bytes_sent:3\n"
	if got := sumBytes(out); got != 123 {
		t.Errorf("the sum is %v, want 123", got)
	}
}

func TestPartName(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"/scale-to-zero", "controller", "--x"}, "controller"},
		{[]string{"/scale-to-zero", "interceptor"}, "interceptor"},
		{[]string{"/scale-to-zero", "restore"}, ""},
		{[]string{"/scale-to-zero"}, ""},
		{[]string{"/keda", "--zap"}, "keda-operator"},
		{[]string{"/keda-adapter"}, "keda-adapter"},
		{[]string{""}, ""},
	} {
		if got := partName(tc.args); got != tc.want {
			t.Errorf("%q is %q, want %q", tc.args, got, tc.want)
		}
	}
}

func TestSplitProbes(t *testing.T) {
	t.Parallel()
	h := probes{{at(1), 1}, {at(2), 2}, {at(3), 3}}.split(at(2))
	if !slices.Equal(h.before, []float64{1}) || !slices.Equal(h.after, []float64{2, 3}) {
		t.Errorf("halves are %+v", h)
	}
}

func TestReviewRoundsTrip(t *testing.T) {
	t.Parallel()
	s := newService("app")
	if s.Annotations["scale-to-zero/cooldown"] != "20s" {
		t.Errorf("the cool-down is %q", s.Annotations["scale-to-zero/cooldown"])
	}
	for name, before := range map[string]bool{"create": false, "update": true} {
		old := newService("app")
		if !before {
			old = nil
		}
		b, err := review("1", s, old)
		if err != nil || len(b) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSourcesDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for i := range crowdSources {
		seen[source(i).String()] = true
	}
	if len(seen) != crowdSources {
		t.Errorf("%d clients have %d addresses", crowdSources, len(seen))
	}
}
