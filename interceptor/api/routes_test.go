// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"math"
	"net/url"
	"path"
	"reflect"
	"slices"
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

// hostileRoutes are what somebody might write who is not the injector.
func hostileRoutes() map[string]func(*Routes) {
	many := func(n int) []Port {
		ports := make([]Port, n)
		for i := range ports {
			ports[i] = Port{Name: fmt.Sprint("p", i), Port: 80, Listen: int32(10000 + i), Protocol: ProtocolAuto}
		}
		return ports
	}
	return map[string]func(*Routes){
		"a resource elsewhere":          func(r *Routes) { r.Workload.Resource = "../kube-system/deployments" },
		"a resource with a query":       func(r *Routes) { r.Workload.Resource = "deployments?dryRun=All" },
		"an encoded resource":           func(r *Routes) { r.Workload.Resource = "%2e%2e" },
		"a resource of dots":            func(r *Routes) { r.Workload.Resource = ".." },
		"a subresource":                 func(r *Routes) { r.Workload.Resource = "deployments/scale" },
		"a name elsewhere":              func(r *Routes) { r.Workload.Name = "../../kube-system/deployments/coredns" },
		"a name with a slash":           func(r *Routes) { r.Workload.Name = "web/scale" },
		"a name of dots":                func(r *Routes) { r.Workload.Name = ".." },
		"a name with dots":              func(r *Routes) { r.Workload.Name = "a..b" },
		"a name with a fragment":        func(r *Routes) { r.Workload.Name = "web#" },
		"a name with a NUL":             func(r *Routes) { r.Workload.Name = "web\x00" },
		"a name with a line":            func(r *Routes) { r.Workload.Name = "web\nx" },
		"a name in upper case":          func(r *Routes) { r.Workload.Name = "Web" },
		"a long name":                   func(r *Routes) { r.Workload.Name = strings.Repeat("a", 254) },
		"a kind with a slash":           func(r *Routes) { r.Workload.Kind = "Deployment/x" },
		"a kind of many":                func(r *Routes) { r.Workload.Kind = strings.Repeat("K", 64) },
		"a version elsewhere":           func(r *Routes) { r.Workload.APIVersion = "../api/v1" },
		"a version of three":            func(r *Routes) { r.Workload.APIVersion = "apps/v1/namespaces" },
		"a version without a group":     func(r *Routes) { r.Workload.APIVersion = "v1" },
		"no version":                    func(r *Routes) { r.Workload.APIVersion = "" },
		"a group of dots":               func(r *Routes) { r.Workload.APIVersion = "../v1" },
		"a version of dots":             func(r *Routes) { r.Workload.APIVersion = "apps/.." },
		"a UID with a slash":            func(r *Routes) { r.Workload.UID = "a/b" },
		"a long UID":                    func(r *Routes) { r.ServiceUID = strings.Repeat("a", 129) },
		"no UID":                        func(r *Routes) { r.ServiceUID = "" },
		"a Service elsewhere":           func(r *Routes) { r.Service, r.Direct = "../x", "../x-direct" },
		"a Service with a dot":          func(r *Routes) { r.Service, r.Direct = "a.b", "a.b-direct" },
		"a Service with a quote":        func(r *Routes) { r.Service, r.Direct = `a"b`, `a"b-direct` },
		"another's direct Service":      func(r *Routes) { r.Direct = "other-direct" },
		"the Service as its own direct": func(r *Routes) { r.Direct = r.Service },
		"a long cool-down":              func(r *Routes) { r.Cooldown = Duration(MaxCooldown + 1) },
		"a short cool-down":             func(r *Routes) { r.Cooldown = 1 },
		"a cool-down of centuries":      func(r *Routes) { r.Cooldown = math.MaxInt64 },
		"a long hold":                   func(r *Routes) { r.HoldTimeout = Duration(MaxHoldTimeout + 1) },
		"a short hold":                  func(r *Routes) { r.HoldTimeout = 1 },
		"a low port":                    func(r *Routes) { r.Ports[0].Listen = MinListen - 1 },
		"no port to listen on":          func(r *Routes) { r.Ports[0].Listen = 0 },
		"a negative port":               func(r *Routes) { r.Ports[0].Listen = -10000 },
		"no number":                     func(r *Routes) { r.Ports[0].Port = 0 },
		"a number too high":             func(r *Routes) { r.Ports[0].Port = 65536 },
		"a port's name":                 func(r *Routes) { r.Ports[0].Name = "a/b" },
		"many ports":                    func(r *Routes) { r.Ports = many(MaxPorts + 1) },
		"one port twice": func(r *Routes) {
			r.Ports = many(2)
			r.Ports[1].Listen = r.Ports[0].Listen
		},
		"one name twice": func(r *Routes) {
			r.Ports = many(2)
			r.Ports[1].Name = r.Ports[0].Name
		},
		"a port without a name": func(r *Routes) {
			r.Ports = many(2)
			r.Ports[1].Name = ""
		},
		"a host with a path":    func(r *Routes) { r.Reach = &Reach{Hosts: []string{"a.example/b"}} },
		"only a wildcard":       func(r *Routes) { r.Reach = &Reach{Hosts: []string{"*"}} },
		"an address of letters": func(r *Routes) { r.Reach = &Reach{Inside: []string{"None"}} },
		"a story":               func(r *Routes) { r.Gone = "a\nb" },
		"a long story":          func(r *Routes) { r.Gone = strings.Repeat("a", maxGone+1) },
		"many paths":            func(r *Routes) { r.IgnorePaths = slices.Repeat([]string{"/a"}, MaxIgnored+1) },
		"many agents":           func(r *Routes) { r.IgnoreAgents = slices.Repeat([]string{"abc"}, MaxIgnored+1) },
		"to wake elsewhere":     func(r *Routes) { r.WakeWith = []string{"../x"} },
		"a long trust":          probing(func(r *Readiness) { r.Trust = Duration(maxTrust + 1) }),
		"a slow probe":          probing(func(r *Readiness) { r.Probes[0].Timeout = Duration(maxProbeTimeout + 1) }),
		"many successes":        probing(func(r *Readiness) { r.Probes[0].Successes = maxSuccesses + 1 }),
		"a long path":           probing(func(r *Readiness) { r.Probes[0].HTTP.Path = "/" + strings.Repeat("a", maxProbePath) }),
		"a path of two lines":   probing(func(r *Readiness) { r.Probes[0].HTTP.Path = "/a\r\nb" }),
		"many fields":           probing(func(r *Readiness) { r.Probes[0].HTTP.Headers = make([]Header, maxProbeHeaders+1) }),
		"a long field":          probing(func(r *Readiness) { r.Probes[0].HTTP.Headers[0].Value = strings.Repeat("a", maxProbeHeader) }),
		"a long service": probing(func(r *Readiness) {
			r.Probes[0].HTTP, r.Probes[0].GRPC = nil, &GRPCProbe{Service: strings.Repeat("a", maxProbeService+1)}
		}),
		"a long annotation": func(r *Routes) {
			r.Reach = &Reach{Hosts: slices.Repeat([]string{strings.Repeat("a", 250)}, 1100)}
		},
	}
}

func TestHostileRoutesDoNotDecode(t *testing.T) {
	for name, change := range hostileRoutes() {
		t.Run(name, func(t *testing.T) {
			r := valid()
			change(&r)
			value, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := DecodeRoutes(value); err == nil {
				t.Errorf("%q decodes to %+v", value, got)
			}
		})
	}
}

// Names of every allowed form decode.
func TestUnusualNamesDecode(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, change := range map[string]func(*Routes){
		"a long Service":    func(r *Routes) { r.Service, r.Direct = long, DirectServiceName(long) },
		"a digit":           func(r *Routes) { r.Service, r.Direct = "1", "1-direct" },
		"a long workload":   func(r *Routes) { r.Workload.Name = strings.Repeat("a.", 126) + "a" },
		"a workload's dots": func(r *Routes) { r.Workload.Name = "a-b.c-1" },
		"a custom resource": func(r *Routes) {
			r.Workload = Workload{APIVersion: "argoproj.io/v1alpha1", Kind: "Rollout", Name: "web", UID: "u", Resource: "rollouts"}
		},
		"a Service's UID": func(r *Routes) { r.ServiceUID = "5c0f4ac6-52d4-4f32-a7bd-4f6d5d0cbd2d" },
		"an unnamed port": func(r *Routes) { r.Ports[0].Name = "" },
		"hosts": func(r *Routes) {
			r.Reach = &Reach{Hosts: []string{"*.example.com", "a.example"}, Inside: []string{"10.0.0.1", "fd00::1"}}
		},
	} {
		r := valid()
		change(&r)
		value, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeRoutes(value); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestHostileProgressDoesNotDecode(t *testing.T) {
	for _, value := range []string{
		`{"failing":"a\nb"}`, `{"failing":"` + strings.Repeat("a", MaxFailing+1) + `"}`, `{"reason":"` + strings.Repeat("a", maxReason+1) + `"}`,
		`{"failing":"\u0000"}`, `{"failing":"\u2028"}`, `{"paused":{"why":"a\r\nb"}}`, `{"starts":["-1s"]}`, `{"apps":["9000h"]}`,
		`{"running":"-1s"}`, `{"wakeTo":1001}`, `{"wakeTo":-1}`, `{"stage":"x"}`, `{"starts":[` + strings.Repeat(`"1s",`, maxStarts) + `"1s"]}`,
	} {
		if got, err := DecodeProgress(value); err == nil || !reflect.DeepEqual(got, Progress{}) {
			t.Errorf("%q decodes to %+v, %v", value, got, err)
		}
	}
}

func TestHostileLearnedDoesNotDecode(t *testing.T) {
	for _, other := range []string{
		"", "web", "Deployment/", "/web", "Deployment/../x", "Deployment/a/b", "Rollout.argoproj.io/../x", "Rollout../web", "a b/web",
		"Deployment/Web",
	} {
		value, err := Learned{other: {Found: 2}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeLearned(value); err == nil {
			t.Errorf("%q decodes to %v", value, got)
		}
	}
	if got, err := DecodeLearned(`{"Deployment/api":{"found":1000000000}}`); err == nil {
		t.Errorf("decodes to %v", got)
	}
	for _, other := range []string{"Deployment/web", "StatefulSet/a.b", "Rollout.argoproj.io/web"} {
		if _, err := DecodeLearned(`{"` + other + `":{"found":2,"missed":10}}`); err != nil {
			t.Error(err)
		}
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

// safe checks that the names in r stay where a path of the API server has them, as client-go joins it, and that the ports are some.
func safe(t *testing.T, r Routes) {
	t.Helper()
	w := r.Workload
	for _, segments := range [][]string{
		strings.Split(w.APIVersion, "/"), {"namespaces", "shop"}, {w.Resource + "x"}, {w.Name}, {r.Service}, {r.Direct}, {w.Kind}, {r.ServiceUID},
	} {
		joined := path.Join(append([]string{"/apis"}, segments...)...)
		parsed, err := url.Parse(joined)
		if err != nil || parsed.Path != joined || parsed.RawQuery != "" || strings.Count(joined, "/") != len(segments)+1 {
			t.Errorf("%q leads to %q, %v", segments, joined, err)
		}
	}
	listens := map[int32]bool{}
	for _, p := range r.Ports {
		if p.Listen < MinListen || p.Listen > 65535 || listens[p.Listen] {
			t.Errorf("listens on %d", p.Listen)
		}
		listens[p.Listen] = true
	}
}

// Everything that decodes can be encoded, and decodes to the same value again. It is safe in a path of the API server.
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
	for _, change := range hostileRoutes() {
		hostile := valid()
		change(&hostile)
		if value, err = hostile.Encode(); err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
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
		if err != nil {
			t.Errorf("%q decodes to %+v, and that to %v", value, r, err)
		}
		if twice, err := same.Encode(); err != nil || twice != again {
			t.Errorf("%q decodes to %q, and that to %q, %v", value, again, twice, err)
		}
		safe(t, r)
	})
}
