// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func valid() Routes {
	return Routes{
		Service: "web", ServiceUID: "u1", Direct: "web-direct",
		Workload: Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "u2"},
		Ports:    []Port{{Name: "http", Port: 80, Listen: 10000, Protocol: ProtocolAuto}},
		Cooldown: Duration(5 * time.Minute), HoldTimeout: Duration(90 * time.Second),
	}
}

func TestRoutesRoundTrip(t *testing.T) {
	value, err := valid().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(value, `"cooldown":"5m0s"`) {
		t.Errorf("a person cannot read the cool-down in %s", value)
	}
	got, err := DecodeRoutes(value)
	if err != nil || !reflect.DeepEqual(got, valid()) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Annotations of an injector of another version stay readable: fields that it does not know are zero, and fields that we do not know
// are skipped.
func TestRoutesOfAnotherVersion(t *testing.T) {
	const before = `{"service":"web","serviceUID":"u1","direct":"web-direct",` +
		`"workload":{"apiVersion":"apps/v1","kind":"Deployment","name":"web","uid":"u2"},` +
		`"ports":[{"name":"http","port":80,"listen":10000,"protocol":"auto"}],"cooldown":"5m0s","holdTimeout":"1m30s"`
	for name, value := range map[string]string{
		"before session affinity": before + `}`, "a later one": before + `,"clientAffinity":false,"later":{"a":[1]}}`,
	} {
		if got, err := DecodeRoutes(value); err != nil || !reflect.DeepEqual(got, valid()) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	// The annotation of a Service that uses no new setting is unchanged, so that an upgrade changes no slice.
	if value, err := valid().Encode(); err != nil || value != before+`}` {
		t.Errorf("got %s, %v", value, err)
	}
	sticky := valid()
	sticky.ClientAffinity = true
	if value, err := sticky.Encode(); err != nil || value != before+`,"clientAffinity":true}` {
		t.Errorf("got %s, %v", value, err)
	}
	proxied := valid()
	proxied.AffinityCookie, proxied.Ports[0].ProxyProtocol = "sid", true
	if value, err := proxied.Encode(); err != nil || !strings.Contains(value, `"protocol":"auto","proxyProtocol":true}`) ||
		!strings.Contains(value, `,"affinityCookie":"sid"`) {
		t.Errorf("got %s, %v", value, err)
	} else if got, err := DecodeRoutes(value); err != nil || !reflect.DeepEqual(got, proxied) {
		t.Errorf("got %+v, %v", got, err)
	}
	awake := valid()
	awake.Awake = "Mon-Fri 08:00-18:30 Asia/Seoul"
	if value, err := awake.Encode(); err != nil || value != before+`,"awake":"Mon-Fri 08:00-18:30 Asia/Seoul"}` {
		t.Errorf("got %s, %v", value, err)
	} else if got, err := DecodeRoutes(value); err != nil || !reflect.DeepEqual(got, awake) {
		t.Errorf("got %+v, %v", got, err)
	}
	ignoring := valid()
	ignoring.IgnorePaths, ignoring.IgnoreAgents, ignoring.CountKnownAgents = []string{"/a*"}, []string{"*Acme"}, true
	value, err := ignoring.Encode()
	if err != nil || value != before+`,"ignorePaths":["/a*"],"ignoreAgents":["*Acme"],"countKnownAgents":true}` {
		t.Errorf("got %s, %v", value, err)
	}
	if got, err := DecodeRoutes(value); err != nil || !reflect.DeepEqual(got, ignoring) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// probing gives routes a valid Readiness, and then changes it.
func probing(change func(*Readiness)) func(*Routes) {
	return func(r *Routes) {
		r.Readiness = &Readiness{Trust: Duration(time.Minute), Probes: []Probe{{
			HTTP: &HTTPProbe{Path: "/", Headers: []Header{{Name: "A", Value: "b"}}}, Port: 8080, Timeout: Duration(time.Second), Successes: 1,
		}}}
		change(r.Readiness)
	}
}

func TestDecodeRoutesSaysWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Routes)
		want   string
	}{
		"service":  {func(r *Routes) { r.Service = "" }, "service is empty"},
		"direct":   {func(r *Routes) { r.Direct = "" }, "direct is empty"},
		"workload": {func(r *Routes) { r.Workload.Kind = "" }, "lacks a kind or a name"},
		"cooldown": {func(r *Routes) { r.Cooldown = 0 }, "must be positive"},
		"timeout":  {func(r *Routes) { r.HoldTimeout = -1 }, "must be positive"},
		"no ports": {func(r *Routes) { r.Ports = nil }, "no ports"},
		"listen":   {func(r *Routes) { r.Ports[0].Listen = 70000 }, "listens on 70000"},
		"protocol": {func(r *Routes) { r.Ports[0].Protocol = "udp" }, `protocol "udp"`},
		"cookie":   {func(r *Routes) { r.AffinityCookie = "a b" }, `affinity cookie is "a b"`},
		"path":     {func(r *Routes) { r.IgnorePaths = []string{"/a", ""} }, `ignored path ""`},
		"agent":    {func(r *Routes) { r.IgnoreAgents = []string{"*"} }, `ignored agent "*"`},

		"awake":   {func(r *Routes) { r.Awake = "Mon 08:00-09:00" }, `awake: window 1 is "Mon 08:00-09:00": a time zone is missing`},
		"pending": {func(r *Routes) { r.MaxPendingPerPod = -1 }, "maxPendingPerPod is -1, want at most 100000"},
		"pending too high": {
			func(r *Routes) { r.MaxPendingPerPod = MaxPendingPerPod + 1 }, "maxPendingPerPod is 100001",
		},

		"busy asks nothing":   {busy(func(b *Busy) { b.Request, b.CPU = nil, 0 }), "more than 0m CPU, want 1m to 1000000m"},
		"busy by any method":  {busy(func(b *Busy) { b.Request.Method = "DELETE" }), `cannot be asked "DELETE /a%2fb?c=d" whether`},
		"busy elsewhere":      {busy(func(b *Busy) { b.Request.Path = "http://192.0.2.1/" }), `cannot be asked "GET http://192.0.2.1/"`},
		"busy at a host":      {busy(func(b *Busy) { b.Request.Path = "//192.0.2.1/" }), `cannot be asked "GET //192.0.2.1/"`},
		"busy without a path": {busy(func(b *Busy) { b.Request.Path = "" }), `cannot be asked "GET "`},
		"busy in two lines":   {busy(func(b *Busy) { b.Request.Path = "/a\r\nHost: b" }), `cannot be asked "GET /a\r\nHost: b"`},
		"busy with a space":   {busy(func(b *Busy) { b.Request.Path = "/a HTTP/1.1" }), "cannot be asked"},
		"busy, badly encoded": {busy(func(b *Busy) { b.Request.Path = "/%2" }), "cannot be asked"},
		"busy, a long path":   {busy(func(b *Busy) { b.Request.Path = "/" + strings.Repeat("a", 1024) }), "cannot be asked"},
		"busy, any port":      {busy(func(b *Busy) { b.Request.Port = 10250 }), "cannot be asked on port 10250"},
		"busy, bytes": {func(r *Routes) {
			busy(func(*Busy) {})(r)
			r.Ports[0].Protocol = ProtocolTCP
		}, "cannot be asked on port 80"},
		"busy always":        {busy(func(b *Busy) { b.Request.When = "" }), `busy when "", want at most 1024 bytes of text`},
		"busy, a long story": {busy(func(b *Busy) { b.Request.When = strings.Repeat("a", 1025) }), "want at most 1024 bytes of text"},
		"busy, less than 0":  {busy(func(b *Busy) { b.CPU = -1 }), "more than -1m CPU"},
		"busy, all CPU":      {busy(func(b *Busy) { b.CPU = MaxBusyCPU + 1 }), "more than 1000001m CPU"},
		"busy, all pods":     {busy(func(b *Busy) { b.Pods = "" }), `"" selects no pods`},
		"busy, no labels":    {busy(func(b *Busy) { b.Pods = " , " }), `" , " selects no pods`},
		"busy, other text":   {busy(func(b *Busy) { b.Pods = "app=web&watch=true" }), `"app=web&watch=true" selects no pods`},

		"no probe":         {probing(func(r *Readiness) { r.Probes = nil }), "0 readiness probes"},
		"many probes":      {probing(func(r *Readiness) { r.Probes = make([]Probe, maxProbes+1) }), "41 readiness probes"},
		"trust":            {probing(func(r *Readiness) { r.Trust = 0 }), "trust 0s must be positive"},
		"probe's port":     {probing(func(r *Readiness) { r.Probes[0].Port = 65536 }), "probe 0 has an invalid port"},
		"probe's timeout":  {probing(func(r *Readiness) { r.Probes[0].Timeout = 0 }), "invalid timeout"},
		"successes":        {probing(func(r *Readiness) { r.Probes[0].Successes = 0 }), "invalid number of successes"},
		"two kinds":        {probing(func(r *Readiness) { r.Probes[0].GRPC = &GRPCProbe{} }), "invalid kind"},
		"another host":     {probing(func(r *Readiness) { r.Probes[0].HTTP.Path = "http://192.0.2.1/" }), "invalid path"},
		"a field in two":   {probing(func(r *Readiness) { r.Probes[0].HTTP.Headers[0].Value = "a\r\nB: c" }), "invalid header"},
		"a field no token": {probing(func(r *Readiness) { r.Probes[0].HTTP.Headers[0].Name = "a b" }), "invalid header"},
	} {
		t.Run(name, func(t *testing.T) {
			r := valid()
			tc.change(&r)
			value, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := DecodeRoutes(value); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	for _, value := range []string{"", "{", `{"cooldown":"soon"}`} {
		if _, err := DecodeRoutes(value); err == nil {
			t.Errorf("%q decodes", value)
		}
	}
}

// busy returns a change of routes that have all about Busy, and then changes that.
func busy(change func(*Busy)) func(*Routes) {
	return func(r *Routes) {
		r.Busy = &Busy{
			Request: &BusyRequest{Method: "GET", Path: "/a%2fb?c=d", Port: 80, When: "json.e > 0"},
			CPU:     200, Pods: "app in (web,api),!x,tier!=db,app.kubernetes.io/name=web_1",
		}
		change(r.Busy)
	}
}

func TestBusyRoundTrip(t *testing.T) {
	want := valid()
	busy(func(*Busy) {})(&want)
	value, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeRoutes(value); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Everything that decodes can be encoded, and decodes to the same value again.
func FuzzDecodeRoutes(f *testing.F) {
	value, err := valid().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	with := valid()
	busy(func(*Busy) {})(&with)
	if value, err = with.Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add(`{"service":"a","direct":"b","workload":{"kind":"c","name":"d"},"cooldown":"1ns","holdTimeout":"1h","ports":[]}`)
	f.Fuzz(func(t *testing.T, value string) {
		r, err := DecodeRoutes(value)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		same, err := DecodeRoutes(again)
		if err != nil || !reflect.DeepEqual(r, same) {
			t.Errorf("%q decodes to %+v, and then to %+v, %v", value, r, same, err)
		}
	})
}
