// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
)

// named returns an opted-in Ingress with one backend and one annotation.
func named(key, value, aliases, backend string) *networkingv1.Ingress {
	i := ingress(true, aliases, backend, backend, backend)
	i.Annotations[key] = value
	return i
}

// Annotations that name a backend follow it, in both directions, even if a chart writes its own names again.
func TestAnnotationsFollowTheBackend(t *testing.T) {
	const aliases, alias = "web=web-scale-to-zero", "web-scale-to-zero"
	for _, tc := range []struct{ key, author, exchanged string }{
		{"nginx.org/websocket-services", "web", alias},
		{"nginx.org/websocket-services", "api, web,web2", "api, " + alias + ",web2"},
		{"nginx.org/ssl-services", "web", alias},
		{"nginx.org/grpc-services", "my-web,web", "my-web," + alias},
		{"nginx.org/rewrites", "serviceName=web rewrite=/", "serviceName=" + alias + " rewrite=/"},
		{
			"nginx.org/rewrites", "serviceName=web rewrite=/web;serviceName=web-2 rewrite=/;serviceName=web",
			"serviceName=" + alias + " rewrite=/web;serviceName=web-2 rewrite=/;serviceName=" + alias,
		},
		{
			"nginx.com/sticky-cookie-services", "serviceName=web srv_id expires=1h path=/web",
			"serviceName=" + alias + " srv_id expires=1h path=/web",
		},
		{"nginx.org/sticky-cookie-services", "serviceName=web srv_id", "serviceName=" + alias + " srv_id"},
		{"ingress.bluemix.net/rewrite-path", "serviceName=web rewrite=/;", "serviceName=" + alias + " rewrite=/;"},
		{
			"alb.ingress.kubernetes.io/actions.weighted",
			`{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"web","servicePort":"80"},{"serviceName": "api"}]}}`,
			`{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"web-scale-to-zero","servicePort":"80"},{"serviceName": "api"}]}}`,
		},
		{"nginx.ingress.kubernetes.io/default-backend", "web", alias},
		{"haproxy-ingress.github.io/default-backend", "web:8080", alias + ":8080"},
		// These do not name a backend.
		{"nginx.org/websocket-services", "", ""},
		{"nginx.org/rewrites", "serviceName", "serviceName"},
		{"nginx.org/location-snippets", "proxy_set_header X web;", "proxy_set_header X web;"},
		{"nginx.ingress.kubernetes.io/auth-url", "http://web.apps.svc/auth", "http://web.apps.svc/auth"},
		{"meta.helm.sh/release-name", "web", "web"},
		{"kubectl.kubernetes.io/last-applied-configuration", `{"serviceName":"web"}`, `{"serviceName":"web"}`},
		{"example.com/default-backend", "web", "web"},
	} {
		asked := named(tc.key, tc.author, aliases, "web")
		check := func(what string, i, old *networkingv1.Ingress, byController bool, want string) {
			t.Helper()
			for range 2 { // applying it twice equals applying it once
				if err := AdmitIngress(i, old, byController); err != nil {
					t.Fatal(err)
				}
				if got := i.Annotations[tc.key]; got != want {
					t.Errorf("%s: %s is %q, want %q", what, tc.key, got, want)
				}
			}
		}
		check("the controller asks", asked, named(tc.key, tc.author, "", "web"), true, tc.exchanged)
		check("the chart again", named(tc.key, tc.author, "", "web"), asked, false, tc.exchanged)
		check("an edit of what is there", asked.DeepCopy(), asked, false, tc.exchanged)
		check("a copy", asked.DeepCopy(), nil, false, tc.author)
		back := asked.DeepCopy()
		delete(back.Annotations, AliasesAnnotation)
		check("the controller gives it back", back, asked, true, tc.author)
	}
}

// The targets of an AWS load balancer's actions are backends: the spec names only the action.
func TestActionsAreBackends(t *testing.T) {
	i := named("alb.ingress.kubernetes.io/actions.blue",
		`{"forwardConfig":{"targetGroups":[{"serviceName":"web-scale-to-zero"},{"serviceName":"api"}]}}`, "web=web-scale-to-zero", "blue")
	author, now := Backends(i)
	if !slices.Equal(author, []string{"api", "blue", "web"}) || !slices.Equal(now, []string{"api", "blue", "web-scale-to-zero"}) {
		t.Errorf("author %v, now %v", author, now)
	}
	for service, want := range map[string]bool{"web": true, "api": true, "other": false} {
		if got := refersTo(i, service, "http", 80); got != want {
			t.Errorf("refers to %s: %t", service, got)
		}
	}
}

func TestNamedElsewhere(t *testing.T) {
	for _, tc := range []struct {
		key, value string
		want       bool
	}{
		{"nginx.ingress.kubernetes.io/auth-url", "http://web.apps.svc.cluster.local:80/auth", true},
		{"nginx.ingress.kubernetes.io/auth-url", "http://web/auth", true},
		{"nginx.ingress.kubernetes.io/auth-url", "https://sso.example.com/web", false},
		{"nginx.ingress.kubernetes.io/mirror-target", "http://web.apps/x", true},
		{"nginx.ingress.kubernetes.io/configuration-snippet", "proxy_pass http://web:80;", true},
		{"nginx.ingress.kubernetes.io/configuration-snippet", "proxy_pass http://web-2:80;", false},
		{"nginx.ingress.kubernetes.io/configuration-snippet", "# the web app", false},
		{"example.com/upstream-services", "api web", true},
		{"haproxy.org/route-backend", "web:80", true},
		{"haproxy.org/route-backend", "other-web", false},
		{"nginx.org/rewrites", "serviceName=web rewrite=/", false}, // this one is rewritten
		{"external-dns.alpha.kubernetes.io/hostname", "web.apps.example.com", false},
		{"cert-manager.io/issuer", "web", false},
		{"meta.helm.sh/release-name", "web", false},
		{"argocd.argoproj.io/tracking-id", "web:networking.k8s.io/Ingress:apps/web", false},
		{"kubectl.kubernetes.io/last-applied-configuration", `{"service":{"name":"web"},"u":"http://web/"}`, false},
		{"scale-to-zero/ignore-paths", "/web", false},
		{"example.com/url", "://", false},
	} {
		i := named(tc.key, tc.value, "", "web")
		if got := NamedElsewhere(i, "web"); (len(got) > 0) != tc.want {
			t.Errorf("%s: %s: got %v", tc.key, tc.value, got)
		}
		warnings := strings.Join(IngressWarnings(i), "\n")
		if strings.Contains(warnings, "annotation "+tc.key+" seems to name backend Service web") != tc.want {
			t.Errorf("%s: %s: warnings %q", tc.key, tc.value, warnings)
		}
	}
}

func FuzzAdmitIngressAnnotations(f *testing.F) {
	f.Add("nginx.org/rewrites", "serviceName=web rewrite=/;serviceName==web")
	f.Add("nginx.org/websocket-services", "web,, web ,web-scale-to-zero")
	f.Add("alb.ingress.kubernetes.io/actions.a", `{"serviceName" : "web"`)
	f.Add("x.ingress.kubernetes.io/default-backend", "web:::")
	f.Fuzz(func(t *testing.T, key, value string) {
		asked := named(key, value, "web=web-scale-to-zero", "web")
		if asked.Annotations[AliasesAnnotation] != "web=web-scale-to-zero" {
			return
		}
		if err := AdmitIngress(asked, named(key, value, "", "web"), true); err != nil {
			t.Skip()
		}
		back := asked.DeepCopy()
		delete(back.Annotations, AliasesAnnotation)
		if err := AdmitIngress(back, asked, true); err != nil {
			t.Fatal(err)
		}
		if got := back.Annotations[key]; got != value && !strings.Contains(value, "web-scale-to-zero") {
			t.Errorf("%s: %q came back as %q", key, value, got)
		}
		NamedElsewhere(asked, "web")
	})
}
