// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func selects(pairs ...string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Selector = map[string]string{}
		for _, pair := range pairs {
			key, value, _ := strings.Cut(pair, "=")
			s.Spec.Selector[key] = value
		}
	}
}

// TestSharePods tests which two Services count as those of the same pods.
func TestSharePods(t *testing.T) {
	for name, tc := range map[string]struct {
		one, other *corev1.Service
		want       bool
	}{
		"the same selector":                 {service(), service(called("api")), true},
		"itself":                            {service(), service(), false},
		"a part of the pods":                {service(), service(called("api"), selects("app=web", "tier=front")), true},
		"other pods":                        {service(), service(called("api"), selects("app=api")), false},
		"pods that may be the same":         {service(selects("app=web", "tier=a")), service(called("api"), selects("app=web", "tier=b")), false},
		"two labels in common with neither": {service(selects("a=1", "b=2")), service(called("api"), selects("b=2", "c=3")), false},
		"no selector":                       {service(noSelector), service(called("api")), false},
		"the sentinel":                      {service(sentinel), service(called("api")), true},
		"a label without a value":           {service(selects("canary=")), service(called("api"), selects("app=web")), false},
		"the same without a value":          {service(selects("canary=")), service(called("api"), selects("app=web", "canary=")), true},
	} {
		t.Run(name, func(t *testing.T) {
			if sharePods(tc.one, tc.other) != tc.want || sharePods(tc.other, tc.one) != tc.want {
				t.Errorf("share pods: %t, and the other way round %t", sharePods(tc.one, tc.other), sharePods(tc.other, tc.one))
			}
		})
	}
}

// TestUncountedVisitors tests which Services beside an app bring it visitors who would not be counted.
func TestUncountedVisitors(t *testing.T) {
	local := func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal) }
	nodePort := ofType(corev1.ServiceTypeNodePort)
	udp := func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP }
	ours := func(s *corev1.Service) { s.Labels[ManagedByLabel] = ManagedBy }
	front := func(value string) []networkingv1.Ingress {
		i := ingressTo("web", networkingv1.ServiceBackendPort{Number: 80})
		if value != "" {
			i.Labels = map[string]string{OptInLabel: value}
		}
		return []networkingv1.Ingress{i}
	}
	second := func(ingresses []networkingv1.Ingress, value string) []networkingv1.Ingress {
		other := *ingresses[0].DeepCopy()
		other.Name, other.Labels = "second", map[string]string{OptInLabel: value}
		return append(ingresses, other)
	}
	for name, tc := range map[string]struct {
		change    []func(*corev1.Service)
		ingresses []networkingv1.Ingress
		want      string
	}{
		"an injectable one":                    {[]func(*corev1.Service){nodePort}, nil, ""},
		"one that nobody reaches":              {[]func(*corev1.Service){headless}, nil, ""},
		"opted out":                            {[]func(*corev1.Service){label("false"), nodePort}, nil, "it is opted out"},
		"opted out, and nobody reaches it":     {[]func(*corev1.Service){label("false")}, nil, ""},
		"opted out, behind an Ingress":         {[]func(*corev1.Service){label("false")}, front(""), "it is opted out"},
		"opted out, behind one that is not":    {[]func(*corev1.Service){label("false")}, front("true"), "it is opted out"},
		"UDP":                                  {[]func(*corev1.Service){udp, nodePort}, nil, "its port http (80) is UDP"},
		"UDP, behind an opted-in Ingress":      {[]func(*corev1.Service){udp}, front("true"), "its port http (80) is UDP"},
		"headless, behind an Ingress":          {[]func(*corev1.Service){headless}, front(""), "it is headless"},
		"headless, behind an opted-in Ingress": {[]func(*corev1.Service){headless}, front("true"), ""},
		"headless, behind one whose label is wrong": {
			[]func(*corev1.Service){headless}, front("yes"), "it is headless",
		},
		"headless, behind one that is opted out": {[]func(*corev1.Service){headless}, front("false"), ""},
		"headless, behind two of which one is opted in": {
			[]func(*corev1.Service){headless}, second(front(""), "true"), "it is headless",
		},
		"headless, behind two":                     {[]func(*corev1.Service){headless}, second(front("true"), "true"), ""},
		"of each node, behind an opted-in Ingress": {[]func(*corev1.Service){local}, front("true"), ""},
		"of each node, behind an Ingress":          {[]func(*corev1.Service){local}, front(""), "its internalTrafficPolicy is Local"},
		"made by us":                               {[]func(*corev1.Service){ours, headless, nodePort}, nil, ""},
		"no selector":                              {[]func(*corev1.Service){noSelector, nodePort}, nil, "it has no selector"},
	} {
		t.Run(name, func(t *testing.T) {
			s := service(tc.change...)
			if _, opted := s.Labels[OptInLabel]; opted && s.Labels[OptInLabel] != "false" {
				unlabelled(s)
			}
			got := Surroundings{Ingresses: tc.ingresses}.uncounted(s)
			if (got == "") != (tc.want == "") || !strings.HasPrefix(string(got), tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestAmongItsSurroundings tests that a Service is not judged by itself a second time, as one of those around it.
func TestAmongItsSurroundings(t *testing.T) {
	lb := service(unlabelled, ofType(corev1.ServiceTypeLoadBalancer))
	lb.Spec.Ports[0].Protocol = corev1.ProtocolUDP
	if got := JudgeNamespaced(lb, Surroundings{Services: []corev1.Service{*lb}}); got != "" {
		t.Errorf("its own UDP is that of another Service: %s", got)
	}
	whole := service(unlabelled, selects("app=web"))
	part := service(called("part"), unlabelled, selects("app=web", "tier=front"), ofType(corev1.ServiceTypeNodePort))
	for _, s := range []*corev1.Service{whole, part} {
		if got := JudgeNamespaced(s, Surroundings{Services: []corev1.Service{*whole, *part}}); got != "" {
			t.Errorf("%s, of whose pods visitors reach a part: %s", s.Name, got)
		}
	}
}

// TestReleaseOf tests by which of its marks a Service belongs to a release, in the charts that set them.
func TestReleaseOf(t *testing.T) {
	marks := func(instance, helm, release string) *corev1.Service {
		return service(annotated("meta.helm.sh/release-name", helm), func(s *corev1.Service) {
			s.Labels["app.kubernetes.io/instance"], s.Labels["release"] = instance, release
		})
	}
	for want, s := range map[string]*corev1.Service{
		"instance": marks("instance", "helm", "release"),
		"helm":     marks("", "helm", "release"),
		"release":  marks("", "", "release"),
		"":         service(),
	} {
		if got := ReleaseOf(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	apart := func(name string, change ...func(*corev1.Service)) corev1.Service {
		return *service(append([]func(*corev1.Service){called(name), selects("app=" + name)}, change...)...)
	}
	if OptedInTogether(service(), []corev1.Service{apart("api"), apart("db")}) {
		t.Error("Services of no release are one")
	}
	wrong := apart("api", label("yes"), func(s *corev1.Service) { s.Labels["release"] = "shop" })
	if OptedInTogether(service(func(s *corev1.Service) { s.Labels["release"] = "shop" }), []corev1.Service{wrong}) {
		t.Error("a Service whose label is wrong is opted in")
	}
}

// TestSiblingsAreLeft tests which Services of the same pods are no siblings that somebody should opt in.
func TestSiblingsAreLeft(t *testing.T) {
	w := workload("Deployment", "web", map[string]string{"app": "web", "tier": ""})
	for name, tc := range map[string]struct {
		change []func(*corev1.Service)
		want   bool
	}{
		"of its pods": {nil, true},
		"being deleted": {
			[]func(*corev1.Service){func(s *corev1.Service) { s.DeletionTimestamp = &metav1.Time{Time: noon} }}, false,
		},
		"without a selector":         {[]func(*corev1.Service){noSelector}, false},
		"of a label it has not":      {[]func(*corev1.Service){selects("app=web", "release=")}, false},
		"of a label without a value": {[]func(*corev1.Service){selects("tier=")}, true},
		"made by us":                 {[]func(*corev1.Service){func(s *corev1.Service) { s.Labels[ManagedByLabel] = ManagedBy }}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := service(append([]func(*corev1.Service){called("api"), unlabelled}, tc.change...)...)
			got := Siblings(w, []corev1.Service{*s}, func(*corev1.Service) bool { return false })
			if (len(got) == 1) != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// TestNamesAreBounded tests that our objects' names fit into Kubernetes' limits, and stay readable as long as they do.
func TestNamesAreBounded(t *testing.T) {
	for name, tc := range map[string]struct{ got, want string }{
		"as long as may be": {DirectServiceName(strings.Repeat("a", 56)), strings.Repeat("a", 56) + "-direct"},
		"a character more": {
			DirectServiceName(strings.Repeat("a", 57)), strings.Repeat("a", 47) + "-f13b2d72-direct",
		},
		"a cut at a hyphen": {
			DirectServiceName(strings.Repeat("a", 46) + "-" + strings.Repeat("b", 16)), strings.Repeat("a", 46) + "-d6997635-direct",
		},
		"an alias": {AliasServiceName(strings.Repeat("a", 49)), strings.Repeat("a", 49) + "-scale-to-zero"},
		"a slice":  {RouteSliceName("web", "IPv6"), "web-scale-to-zero-ipv6"},
		"a ScaledObject": {
			ScaledObjectName(api.Workload{Kind: "StatefulSet", Name: strings.Repeat("a", 42)}), strings.Repeat("a", 42) + "-statefulset",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.got != tc.want {
				t.Errorf("got %s", tc.got)
			}
		})
	}
}
