// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

// TestNameEnds tests where a Service's name begins and ends in an annotation's URL or DNS name.
func TestNameEnds(t *testing.T) {
	const auth = "nginx.ingress.kubernetes.io/auth-url"
	for _, tc := range []struct {
		key, value, service string
		want                bool
	}{
		{auth, "http://web", "web", true},
		{auth, "http://web:8080/auth", "web", true},
		{auth, "http://web?x=1", "web", true},
		{auth, "http://web2/auth", "web", false},
		{auth, "http://webz/auth", "web", false},
		{auth, "http://web.example.com/auth", "web", false},
		{auth, "http://my-web/auth", "web", false},
		{auth, "http://a0z9/auth", "a0z9", true},
		{auth, "http://a0z9-a0z9/auth", "a0z9-a0z9", true},
		{auth, "http://a0z9.apps.svc/auth", "a0z9", true},
		{auth, "https://sso.example.com/?next=http://web/", "web", true},
		{auth, "http://$host/auth", "web", false},
		// A snippet puts the URL into braces, backquotes or quotes.
		{"nginx.ingress.kubernetes.io/server-snippet", "{http://web}", "web", true},
		{"nginx.ingress.kubernetes.io/server-snippet", "set $u `http://web`;", "web", true},
		{"nginx.ingress.kubernetes.io/server-snippet", `set $u "http://web";`, "web", true},
		{"nginx.ingress.kubernetes.io/server-snippet", "grpc_pass web.apps.svc.cluster.local;", "web", true},
		{"nginx.ingress.kubernetes.io/server-snippet", "grpc_pass web.apps;", "web", true},
		{"nginx.ingress.kubernetes.io/server-snippet", "grpc_pass web.shop;", "web", false},
		{"nginx.ingress.kubernetes.io/server-snippet", "grpc_pass web.apps.example.com;", "web", false},
		{"nginx.ingress.kubernetes.io/server-snippet", "grpc_pass api.web.apps.svc;", "web", false},
		// A key that is about Services may have the name alone.
		{"example.com/service", "web", "web", true},
		{"example.com/Upstreams", "api;web", "web", true},
		{"example.com/backend-name", "webz", "web", false},
		{"example.com/name", "web", "web", false},
		{"service.example.com/name", "web", "web", false},
	} {
		i := named(tc.key, tc.value, "", tc.service)
		if got := slices.Equal(NamedElsewhere(i, tc.service), []string{tc.key}); got != tc.want {
			t.Errorf("%s: %s: names %s: %t", tc.key, tc.value, tc.service, got)
		}
	}
}

// TestNamedBesides tests annotations that name several Services, of which admission renames one.
func TestNamedBesides(t *testing.T) {
	const actions = "alb.ingress.kubernetes.io/actions.blue"
	for name, tc := range map[string]struct {
		key, value string
		want       []string // by which the Service is still named
	}{
		"a list that is renamed":         {"nginx.org/websocket-services", "web,api", nil},
		"a list of others":               {"nginx.org/websocket-services", "api", nil},
		"a list that nobody renames":     {"example.com/websocket-services", "web,api", []string{"example.com/websocket-services"}},
		"a rewrite beside another's URL": {"nginx.org/rewrites", "serviceName=api rewrite=http://web/", []string{"nginx.org/rewrites"}},
		"an action, and a URL":           {actions, `{"serviceName":"web","url":"http://web/"}`, nil},
		"another's action, and a URL":    {actions, `{"serviceName":"api","url":"http://web/"}`, []string{actions}},
		"a note of ours":                 {Prefix + "note-on-service", "web", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := NamedElsewhere(named(tc.key, tc.value, "", "web"), "web"); !slices.Equal(got, tc.want) {
				t.Errorf("got %v", got)
			}
		})
	}
	i := named("example.com/service", "web", "", "web")
	i.Annotations["a.example.com/backend"], i.Annotations["z.example.com/upstream"] = "web", "web"
	want := []string{"a.example.com/backend", "example.com/service", "z.example.com/upstream"}
	if got := NamedElsewhere(i, "web"); !slices.Equal(got, want) {
		t.Errorf("the keys are not sorted: %v", got)
	}
}

// TestOnlyActionsAreBackends tests that names in other annotations than an action's do not make a Service a backend.
func TestOnlyActionsAreBackends(t *testing.T) {
	for key, want := range map[string]string{
		"alb.ingress.kubernetes.io/actions.blue":    "api web",
		"alb.ingress.kubernetes.io/conditions.blue": "web",
		"nginx.org/rewrites":                        "web",
	} {
		author, now := Backends(named(key, `{"serviceName":"api"}`, "", "web"))
		if got := strings.Join(author, " "); got != want || !slices.Equal(author, now) {
			t.Errorf("%s: author %v, now %v", key, author, now)
		}
	}
}

// TestMeshAnnotations tests which annotations of a mesh the alias Service takes over, since ingress controllers in the mesh read them.
func TestMeshAnnotations(t *testing.T) {
	for key, want := range map[string]bool{
		"networking.istio.io/exportTo":              true,
		"networking.istio.io/traffic":               false,
		"retry.linkerd.io/http":                     true,
		"timeout.linkerd.io/request":                true,
		"balancer.linkerd.io/failure-accrual":       true,
		"viz.linkerd.io/tap":                        false,
		"k8s.apisix.apache.org/upstream-retries":    true,
		"service.alpha.kubernetes.io/app-protocols": true,
		"beta.cloud.google.com/backend-config":      true,
		"beta.cloud.google.com/l4-rbs":              false,
	} {
		if got := AliasService(service(annotated(key, "x"))).Annotations[key] == "x"; got != want {
			t.Errorf("%s is copied: %t, want %t", key, got, want)
		}
	}
}

// TestAliasesAnnotation tests what is read of an annotation that somebody may have edited, and how it is written again.
func TestAliasesAnnotation(t *testing.T) {
	for value, want := range map[string]string{
		"":                      "",
		"web=web-scale-to-zero": "web=web-scale-to-zero",
		"web=a,api=b":           "api=b,web=a",
		"web=a,web=b":           "web=b",
		"web":                   "",
		"web,api=b":             "api=b",
		"=a":                    "",
		"web=":                  "",
		"web=a=b":               "web=a=b",
		",,api=b,":              "api=b",
	} {
		i := &networkingv1.Ingress{}
		i.Annotations = map[string]string{AliasesAnnotation: value}
		if got := EncodeAliases(Aliases(i)); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
	if got := Aliases(&networkingv1.Ingress{}); len(got) != 0 {
		t.Errorf("without annotations: %v", got)
	}
}

// TestAdmitsWhatIsWrong tests that our controller can redirect and restore an Ingress whose label or settings somebody has written
// wrongly while admission was down, and that nobody else can write these.
func TestAdmitsWhatIsWrong(t *testing.T) {
	for name, change := range map[string]func(*networkingv1.Ingress){
		"a label":               func(i *networkingv1.Ingress) { i.Labels = map[string]string{OptInLabel: "yes"} },
		"a setting":             func(i *networkingv1.Ingress) { i.Annotations[Prefix+"cooldown"] = "soon" },
		"a Namespace's setting": func(i *networkingv1.Ingress) { i.Annotations[InternalServicesAnnotation] = "true" },
	} {
		t.Run(name, func(t *testing.T) {
			old := ingress(true, "", "web", "web", "web")
			change(old)
			now := old.DeepCopy()
			if err := AdmitIngress(now.DeepCopy(), old, false); err == nil {
				t.Error("anybody may write it")
			}
			now.Annotations[AliasesAnnotation] = "web=web-scale-to-zero"
			if err := AdmitIngress(now, old, true); err != nil {
				t.Fatal(err)
			}
			if _, backends := Backends(now); !slices.Equal(backends, []string{"web-scale-to-zero"}) {
				t.Errorf("our controller's request leads to %v", backends)
			}
		})
	}
	unlabelledIngress := ingress(false, "", "web", "web", "web")
	unlabelledIngress.Annotations = map[string]string{Prefix + "cooldown": "soon"}
	if err := AdmitIngress(unlabelledIngress, nil, false); err != nil {
		t.Errorf("settings of an Ingress that is not opted in are checked: %v", err)
	}
	if got := IngressWarnings(named("example.com/service", "web", "", "web")); len(got) != 1 ||
		got[0] != "annotation example.com/service seems to name backend Service web: it is left as it is when the backend becomes "+
			"web-scale-to-zero" {
		t.Errorf("warnings %q", got)
	}
	wrong := named("example.com/service", "web", "", "web")
	wrong.Labels = map[string]string{OptInLabel: "yes"}
	if got := IngressWarnings(wrong); len(got) != 0 {
		t.Errorf("an Ingress whose label is wrong is warned of its annotations: %q", got)
	}
}
