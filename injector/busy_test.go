// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestBusyDenials has what the author of a wrong value reads, word by word.
func TestBusyDenials(t *testing.T) {
	const (
		request = " is not allowed: allowed is METHOD /path with GET, HEAD or POST, as in GET /computer/api/json; PORT=METHOD /path for " +
			"another port than the first that speaks HTTP, by name or number; at most 1024 printable ASCII characters, without a fragment"
		when = " is not allowed: allowed is a CEL expression of status, headers, json and body that is true while the app is busy, " +
			"such as json.busyExecutors > 0; "
		cpu = " is not allowed: allowed is a quantity of CPU such as 200m or 2, from 1m to 1000"
	)
	for _, tc := range []struct{ name, value, want string }{
		{"busy", "GET /computer/api/json", ""},
		{"busy", "http=POST /busy", ""},
		{"busy", "/computer/api/json", `annotation scale-to-zero/busy: "/computer/api/json"` + request},
		{"busy", "", `annotation scale-to-zero/busy: ""` + request},
		{"busy", "GET http://169.254.169.254/", `annotation scale-to-zero/busy: "GET http://169.254.169.254/"` + request},
		{"busy-when", "json.busyExecutors > 0", ""},
		{
			"busy-when", "jsn.busyExecutors > 0", `annotation scale-to-zero/busy-when: "jsn.busyExecutors > 0"` + when +
				"column 1: undeclared reference to 'jsn' (in container '')",
		},
		{
			"busy-when", "json.busyExecutors", `annotation scale-to-zero/busy-when: "json.busyExecutors"` + when +
				"it has to be true or false, and its type is not known: compare it with something, as in json.busy == true",
		},
		{
			"busy-when", "status + 1", `annotation scale-to-zero/busy-when: "status + 1"` + when +
				"it has to be true or false, and it is of type int",
		},
		{
			"busy-when", `status == "200"`, `annotation scale-to-zero/busy-when: "status == \"200\""` + when +
				"column 8: found no matching overload for '_==_' applied to '(int, string)'",
		},
		{"busy-cpu", "200m", ""},
		{"busy-cpu", "1000", ""},
		{"busy-cpu", "1001", `annotation scale-to-zero/busy-cpu: "1001"` + cpu},
		{"busy-cpu", "much", `annotation scale-to-zero/busy-cpu: "much"` + cpu},
	} {
		_, err := ParseSettings(map[string]string{Prefix + tc.name: tc.value})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s %q:\n got %s\nwant %s", tc.name, tc.value, got, tc.want)
		}
		service := service(annotated(Prefix+tc.name, tc.value))
		if err := Admit(service, nil, false); (err == nil) != (tc.want == "") {
			t.Errorf("%s %q: admission says %v", tc.name, tc.value, err)
		}
	}
}

// A port that the Service does not have is denied, if the Service itself names it.
func TestBusyPortDenied(t *testing.T) {
	err := Admit(service(annotated(Prefix+"busy", "8080=GET /busy")), nil, false)
	const want = `annotation scale-to-zero/busy: "8080=GET /busy" is not allowed: Service web has no port 8080; it has http (80)`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	for _, port := range []string{"80", "http"} {
		if err := Admit(service(annotated(Prefix+"busy", port+"=GET /busy")), nil, false); err != nil {
			t.Error(err)
		}
	}
}

// The two annotations may be on two objects, so admission only warns if one is missing. Where all objects are seen, the Service is
// skipped.
func TestBusyTogether(t *testing.T) {
	const request, when = "GET /busy", "json.jobs > 0"
	for name, tc := range map[string]struct {
		namespace map[string]string
		change    func(*corev1.Service)
		want      Skip
	}{
		"neither":             {nil, func(*corev1.Service) {}, ""},
		"both on the Service": {map[string]string{}, both(request), ""},
		"one on each": {
			map[string]string{"scale-to-zero/busy-when": when}, annotated("scale-to-zero/busy", request), "",
		},
		"no expression": {nil, annotated("scale-to-zero/busy", request), `annotation scale-to-zero/busy: "GET /busy" is not allowed: it ` +
			"takes annotation scale-to-zero/busy-when too, which says when the answer means that the app is busy, such as json.busyExecutors > 0"},
		"no request": {map[string]string{"scale-to-zero/busy-when": when}, func(*corev1.Service) {}, "annotation scale-to-zero/busy-when: " +
			`"json.jobs > 0" is not allowed: it takes annotation scale-to-zero/busy too, which says what the app is asked, such as ` +
			"GET /computer/api/json"},
		"a port of another Service": {
			map[string]string{"scale-to-zero/busy": "admin=GET /busy", "scale-to-zero/busy-when": when},
			func(*corev1.Service) {},
			`annotation scale-to-zero/busy: "admin=GET /busy" is not allowed: Service web has no port admin`,
		},
		"only bytes": {nil, func(s *corev1.Service) {
			both(request)(s)
			s.Spec.Ports[0].AppProtocol = new("postgresql")
		}, `annotation scale-to-zero/busy: "GET /busy" is not allowed: no port of Service web speaks HTTP; if one does, say so with ` +
			"annotation scale-to-zero/protocol"},
		"a port of bytes": {nil, func(s *corev1.Service) {
			both("http=GET /busy")(s)
			s.Spec.Ports[0].AppProtocol = new("https")
		}, `annotation scale-to-zero/busy: "http=GET /busy" is not allowed: port http (80) of Service web does not speak HTTP; if it does, ` +
			"say so with annotation scale-to-zero/protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			o := &Observation{Service: service(tc.change), Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Annotations: tc.namespace}}}
			if _, got := o.settings(ScopeService, nil); got != tc.want {
				t.Errorf("got %s\nwant %s", got, tc.want)
			}
			if err := AdmitNamespace(o.Namespace); err != nil {
				t.Error(err)
			}
			if err := Admit(o.Service, nil, false); err != nil {
				t.Error(err)
			}
		})
	}
	const (
		of     = "annotation scale-to-zero/"
		unless = ". Unless the Namespace or the Service has it, the Service is not redirected"
	)
	for name, tc := range map[string]struct {
		kind   string
		change func(*corev1.Service)
		want   []string
	}{
		"both":            {"Service", both(request), nil},
		"neither":         {"Service", func(*corev1.Service) {}, nil},
		"not opted in":    {"Ingress", func(s *corev1.Service) { s.Labels[OptInLabel] = "false" }, nil},
		"a Namespace":     {"Namespace", annotated("scale-to-zero/busy", request), nil},
		"no expression":   {"Service", annotated("scale-to-zero/busy", request), []string{of + "busy: " + needsWhen + unless}},
		"without busy":    {"Ingress", annotated("scale-to-zero/busy-when", when), []string{of + "busy-when: " + needsRequest + unless}},
		"only busy's CPU": {"Service", annotated("scale-to-zero/busy-cpu", "1"), nil},
	} {
		if got := Warnings(tc.kind, service(tc.change), false); !slices.Equal(got, tc.want) {
			t.Errorf("%s: warned %q", name, got)
		}
	}
}

// both sets the two annotations.
func both(request string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		annotated("scale-to-zero/busy", request)(s)
		annotated("scale-to-zero/busy-when", "json.jobs > 0")(s)
	}
}

func TestBusyRoutes(t *testing.T) {
	ports := []corev1.ServicePort{
		{Name: "db", Port: 5432, AppProtocol: new("postgresql")}, {Name: "http", Port: 80}, {Name: "admin", Port: 8080},
	}
	ask := func(port int32) *api.BusyRequest {
		return &api.BusyRequest{Method: "GET", Path: "/busy?all", Port: port, When: "json.jobs > 0"}
	}
	for name, tc := range map[string]struct {
		busy     BusySettings
		selector string
		want     *api.Busy
	}{
		"none":             {BusySettings{}, "app=web", nil},
		"the first port":   {BusySettings{Request: "GET /busy?all", When: "json.jobs > 0"}, "app=web", &api.Busy{Request: ask(80)}},
		"by name":          {BusySettings{Request: "admin=GET /busy?all", When: "json.jobs > 0"}, "app=web", &api.Busy{Request: ask(8080)}},
		"by number":        {BusySettings{Request: "8080=GET /busy?all", When: "json.jobs > 0"}, "app=web", &api.Busy{Request: ask(8080)}},
		"half":             {BusySettings{Request: "GET /busy?all"}, "app=web", nil},
		"no such port":     {BusySettings{Request: "9=GET /busy?all", When: "json.jobs > 0"}, "app=web", nil},
		"CPU":              {BusySettings{CPU: "1.5"}, "app in (a,b),x!=y", &api.Busy{CPU: 1500, Pods: "app in (a,b),x!=y"}},
		"CPU, no selector": {BusySettings{CPU: "200m"}, "", &api.Busy{CPU: 200, Pods: "app=web"}},
		"request and CPU": {
			BusySettings{Request: "GET /busy?all", When: "json.jobs > 0", CPU: "1m"},
			"app=web",
			&api.Busy{Request: ask(80), CPU: 1, Pods: "app=web"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := DefaultSettings()
			s.Busy = tc.busy
			w := workload("Deployment", "web", nil)
			w.Selector = tc.selector
			listen := map[string]int32{"db": 10001, "http": 10002, "admin": 10003}
			routes := NewRoutes(service(func(s *corev1.Service) { s.Spec.Ports = ports }), s, w, listen)
			if d := cmp.Diff(tc.want, routes.Busy); d != "" {
				t.Error(d)
			}
			back, err := api.DecodeRoutes(encodeRoutes(routes))
			if err != nil || cmp.Diff(routes, back) != "" {
				t.Errorf("it decodes to %+v, %v", back, err)
			}
		})
	}
}

// Whatever an annotation says, the routes that come of it can be decoded, or the Service is skipped.
func FuzzBusy(f *testing.F) {
	f.Add("GET /computer/api/json", "json.busyExecutors > 0", "200m")
	f.Add("http=POST /a%20b?c", "status == 200", "")
	f.Add("GET //a", "true", "0.0001")
	f.Fuzz(func(t *testing.T, request, when, cpu string) {
		s := service(func(s *corev1.Service) {
			for name, value := range map[string]string{"busy": request, "busy-when": when, "busy-cpu": cpu} {
				if value != "" {
					annotated(Prefix+name, value)(s)
				}
			}
		})
		o := &Observation{Service: s, Namespace: &corev1.Namespace{}}
		settings, skip := o.settings(ScopeService, nil)
		if skip != "" {
			return
		}
		routes := NewRoutes(s, settings, workload("Deployment", "web", nil), map[string]int32{"http": 10001})
		if _, err := api.DecodeRoutes(encodeRoutes(routes)); err != nil {
			t.Errorf("%q, %q, %q: %v", request, when, cpu, err)
		}
		asks, measures := routes.Busy != nil && routes.Busy.Request != nil, routes.Busy != nil && routes.Busy.CPU > 0
		if asks != (request != "") || measures != (cpu != "") {
			t.Errorf("%q, %q, %q: %+v", request, when, cpu, routes.Busy)
		}
	})
}
