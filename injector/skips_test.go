// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// TestSkipsOfServices has all of each reason for which a Service is not injected, as its owner reads it after "Not injected: ".
func TestSkipsOfServices(t *testing.T) {
	local := func(p corev1.ServiceInternalTrafficPolicy) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &p }
	}
	ports := func(n int) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.Ports = make([]corev1.ServicePort, n) }
	}
	udp := func(name string) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: name, Port: 53, Protocol: corev1.ProtocolUDP})
		}
	}
	in := func(namespace string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Namespace = namespace }
	}
	for name, tc := range map[string]struct {
		change      []func(*corev1.Service)
		onlyIngress bool
		ingresses   []string
		want        Skip
	}{
		"none": {},
		"of the cluster": {
			change: []func(*corev1.Service){in("kube-system")},
			want:   "Services in namespace kube-system are never injected: the cluster, or scale-to-zero itself, depends on them",
		},
		"of ours": {
			change: []func(*corev1.Service){in("scale-to-zero")},
			want:   "Services in namespace scale-to-zero are never injected: the cluster, or scale-to-zero itself, depends on them",
		},
		"made by us": {
			change: []func(*corev1.Service){func(s *corev1.Service) { s.Labels[ManagedByLabel] = ManagedBy }},
			want: "its label app.kubernetes.io/managed-by=scale-to-zero marks what scale-to-zero makes, and this Service is somebody else's; " +
				"give the label another value",
		},
		"made by somebody else": {change: []func(*corev1.Service){func(s *corev1.Service) { s.Labels[ManagedByLabel] = "Helm" }}},
		"a name": {
			change: []func(*corev1.Service){ofType(corev1.ServiceTypeExternalName)},
			want:   "it is of type ExternalName: its traffic does not go to pods of this cluster",
		},
		"no selector": {
			change: []func(*corev1.Service){noSelector},
			want:   "it has no selector, so its pods are not known; label a Service that selects them",
		},
		"the sentinel alone": {
			change: []func(*corev1.Service){func(s *corev1.Service) { s.Spec.Selector = map[string]string{SentinelKey: SentinelValue} }},
			want:   "it has no selector, so its pods are not known; label a Service that selects them",
		},
		"headless": {change: []func(*corev1.Service){headless}, want: "it is headless: its clients connect to pods by themselves. If visitors " +
			"come through an Ingress, label the Ingress instead; otherwise label a Service with a cluster IP"},
		"headless, behind Ingresses": {
			change: []func(*corev1.Service){headless}, ingresses: []string{"a", "b"},
			want: "it is headless: its clients connect to pods by themselves. Visitors come through an Ingress: kubectl label ingress -n apps " +
				"a b scale-to-zero=true",
		},
		"headless, for its Ingresses alone": {change: []func(*corev1.Service){headless}, onlyIngress: true},
		"of each node": {
			change: []func(*corev1.Service){local(corev1.ServiceInternalTrafficPolicyLocal)},
			want:   "its internalTrafficPolicy is Local, and there need not be an interceptor on every node; set it to Cluster",
		},
		"of each node, for its Ingresses alone": {
			change: []func(*corev1.Service){local(corev1.ServiceInternalTrafficPolicyLocal)}, onlyIngress: true,
		},
		"of the cluster's nodes":  {change: []func(*corev1.Service){local(corev1.ServiceInternalTrafficPolicyCluster)}},
		"no ports":                {change: []func(*corev1.Service){noPorts}, want: "it has no ports"},
		"as many ports as can be": {change: []func(*corev1.Service){ports(MaxPorts)}},
		"too many ports": {
			change: []func(*corev1.Service){ports(MaxPorts + 1)},
			want: "it has 51 ports, and at most 50 are supported, since every interceptor listens on a port for each; move those that visitors " +
				"use to a Service of their own, and label that one",
		},
		"UDP beside TCP": {
			change: []func(*corev1.Service){udp("dns")},
			want:   "its port dns (53) is UDP, and only TCP can be held; move that port to a Service of its own",
		},
		"UDP, unnamed": {
			change: []func(*corev1.Service){noPorts, udp("")},
			want:   "its port 53 is UDP, and only TCP can be held; move that port to a Service of its own",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, JudgeService(service(tc.change...), "scale-to-zero", tc.onlyIngress, tc.ingresses)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSkipsOfNamespaces is TestSkipsOfServices for a Service that only its Namespace opts in.
func TestSkipsOfNamespaces(t *testing.T) {
	const alone = "only its namespace opts it in, and "
	const asleep = ": what other programs keep their data in does not sleep with its namespace. If it should, label "
	toUI := Surroundings{Ingresses: []networkingv1.Ingress{ingressTo("web", networkingv1.ServiceBackendPort{Number: 80})}}
	beside := func(s ...*corev1.Service) Surroundings {
		around := toUI
		for _, one := range s {
			around.Services = append(around.Services, *one)
		}
		return around
	}
	for name, tc := range map[string]struct {
		change []func(*corev1.Service)
		around Surroundings
		want   Skip
	}{
		"exposed": {[]func(*corev1.Service){port("ui", 80, nil)}, toUI, ""},
		"a store": {
			[]func(*corev1.Service){port("db", 5432, nil)},
			Surroundings{InternalServices: true},
			alone + "its port db (5432) is that of PostgreSQL or PgBouncer" + asleep + "it scale-to-zero=true",
		},
		"beside a store": {
			[]func(*corev1.Service){port("ui", 80, nil)},
			beside(service(called("db"), unlabelled, noPorts, port("", 6379, nil))),
			alone + "its pods also serve port 6379 of Service db, which is that of Redis or Valkey" + asleep + "both scale-to-zero=true",
		},
		"beside itself": {
			[]func(*corev1.Service){port("ui", 80, nil)}, beside(service(unlabelled, noPorts, port("ui", 80, nil))), "",
		},
		"beside one without pods": {
			[]func(*corev1.Service){port("ui", 80, nil)}, beside(service(called("x"), unlabelled, noSelector, noPorts, port("", 6379, nil))), "",
		},
		"without pods, and a store": {
			[]func(*corev1.Service){noSelector, port("ui", 80, nil)}, beside(service(called("x"), unlabelled, noPorts, port("", 6379, nil))), "",
		},
		"nothing exposes it": {
			[]func(*corev1.Service){port("http", 80, nil)},
			Surroundings{},
			alone + "no Ingress, Gateway API route, load balancer or node port exposes it. To inject it, label it scale-to-zero=true; for all " +
				"such Services, annotate the Namespace scale-to-zero/internal-services=true",
		},
		"not HTTP": {
			[]func(*corev1.Service){port("ui", 80, nil), port("gossip", 7946, nil)},
			toUI,
			alone + "its port gossip (7946) does not say that it speaks HTTP: name the port http, set its appProtocol, or label the Service " +
				"scale-to-zero=true",
		},
		"visitors who would not count": {
			[]func(*corev1.Service){port("ui", 80, nil)},
			beside(service(called("lb"), ofType(corev1.ServiceTypeLoadBalancer), label("false"), noPorts, port("https", 443, nil))),
			alone + "visitors reach its pods by Service lb too, which cannot be injected: it is opted out. They would not be counted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := JudgeNamespaced(service(append([]func(*corev1.Service){unlabelled, noPorts}, tc.change...)...), tc.around)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSkipsOfWorkloads is TestSkipsOfServices for what is said of the workload.
func TestSkipsOfWorkloads(t *testing.T) {
	web := map[string]string{"app": "web", "tier": "front"}
	two := func(s *corev1.Service) { s.Spec.Selector["tier"] = "front" }
	named := DefaultSettings()
	named.Workload = "StatefulSet/db"
	for name, tc := range map[string]struct {
		change     func(*corev1.Service)
		settings   Settings
		candidates []Workload
		want       Skip
	}{
		"none": {two, Settings{}, nil, "no Deployment or StatefulSet has pods that its selector app=web,tier=front matches; it is injected " +
			"once there is one, or annotation scale-to-zero/workload names another kind"},
		"one whose pods lack a label": {
			two,
			Settings{},
			[]Workload{workload("Deployment", "web", map[string]string{"app": "web"})},
			"no Deployment or StatefulSet has pods that its selector app=web,tier=front matches; it is injected once there is one, or " +
				"annotation scale-to-zero/workload names another kind",
		},
		"several": {
			two,
			Settings{},
			[]Workload{workload("StatefulSet", "b", web), workload("DaemonSet", "a", web), workload("Deployment", "c", web)},
			"its selector matches the pods of DaemonSet/a and Deployment/c and StatefulSet/b; name one with annotation scale-to-zero/workload",
		},
		"of each node": {
			two,
			Settings{},
			[]Workload{workload("DaemonSet", "b", web), workload("DaemonSet", "a", web)},
			"its pods are those of DaemonSet/a and DaemonSet/b, which cannot be scaled to zero",
		},
		"named": {
			two, named,
			[]Workload{workload("Deployment", "web", web)},
			"there is no StatefulSet/db, which annotation scale-to-zero/workload names; it is injected once there is",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, skip := FindWorkload(service(tc.change), tc.settings, tc.candidates)
			if diff := cmp.Diff(tc.want, skip); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSettingLimits: the least and the most that each setting may be, and what is said of anything else.
func TestSettingLimits(t *testing.T) {
	const whole = "allowed is a whole number from "
	const between = "allowed is a duration such as 30s, 5m or 1h30m, from 1s to "
	for name, tc := range map[string]struct {
		allowed []string
		denied  []string
		text    string
	}{
		"min-replicas":            {[]string{"0", "1", "1000"}, []string{"-1", "1001", "", "1.5", "one", "99999999999"}, whole + "0 to 1000"},
		"max-replicas":            {[]string{"1", "1000"}, []string{"0", "1001", "", "-1"}, whole + "1 to 1000"},
		"target-pending-requests": {[]string{"1", "1000000"}, []string{"0", "1000001", ""}, whole + "1 to 1000000"},
		"target-request-rate": {
			[]string{"50", "0.5", "0.001", "1000000", "007", "2.", ".5"},
			[]string{"", "0", "0.0001", "0.0015", "1000001", "-1", "+1", "1e3", "Inf", "NaN", "0x10", "1.2.3", "5/s", "."},
			"allowed is a number of requests each second such as 50 or 0.5, from 0.001 to 1000000, with three decimals at most",
		},
		"cooldown":          {[]string{"1s", "1h30m", "720h"}, []string{"999ms", "720h1s", "", "5", "-5m", "soon"}, between + "720h"},
		"hold-timeout":      {[]string{"1s", "1h"}, []string{"999ms", "1h1s", "", "5"}, between + "1h"},
		"direct-labels":     {[]string{"true", "false"}, []string{"", "True", "1", "yes"}, `allowed is "true" or "false"`},
		"internal-services": {[]string{"true", "false"}, []string{"", "True", "1"}, `allowed is "true" or "false"`},
		"startup-cpu": {
			[]string{"2", "1500m", "0.5", "1m", "1000"},
			[]string{"", "0", "-1", "two", "2 CPUs", "0.0001", "2Gi", "1001", "2000"},
			"allowed is a quantity of CPU such as 2 or 1500m, from 1m to 1000",
		},
		"waiting-page": {[]string{"auto", "always", "never"}, []string{"", "Auto", "true"}, "allowed is auto, always or never"},
		"workload": {
			[]string{"Deployment/web", "StatefulSet/db-0", "Gallery.example.com/web"},
			[]string{"", "web", "DaemonSet/web", "Deployment/", "/web", "Deployment/Web", "Gallery.example_com/web", "Deployment/a/b"},
			"allowed is Deployment/NAME, StatefulSet/NAME, or KIND.GROUP/NAME of a custom resource with a scale subresource",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, value := range tc.allowed {
				if _, err := ParseSettings(map[string]string{Prefix + name: value}); err != nil {
					t.Errorf("%q: %v", value, err)
				}
			}
			for _, value := range tc.denied {
				_, err := ParseSettings(map[string]string{Prefix + name: value})
				want := &SettingError{Key: "annotation " + Prefix + name, Value: value, Allowed: tc.text}
				got, _ := errors.AsType[*SettingError](err)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%q: %s", value, diff)
				}
			}
		})
	}
}

// TestSettingsTogether: what one annotation says may depend on another, all errors are told at once, and others' annotations
// are nobody's business.
func TestSettingsTogether(t *testing.T) {
	for name, tc := range map[string]struct {
		annotations map[string]string
		want        []string
	}{
		"as few as at most": {map[string]string{"min-replicas": "3", "max-replicas": "3"}, nil},
		"more at least than most": {
			map[string]string{"min-replicas": "4", "max-replicas": "3"}, []string{
				`annotation scale-to-zero/min-replicas: "4" is not allowed: allowed is at most scale-to-zero/max-replicas, which is 3`,
			},
		},
		"at least alone": {map[string]string{"min-replicas": "4"}, nil},
		"what we write":  {map[string]string{"route": "ready", "aliases": "a=b"}, nil},
		"two errors, in order": {
			map[string]string{"min-replicas": "x", "cooldown": "x"},
			[]string{`annotation scale-to-zero/cooldown: "x"`, `annotation scale-to-zero/min-replicas: "x"`},
		},
		"one error hides no other": {
			map[string]string{"min-replicas": "4", "max-replicas": "0"}, []string{`annotation scale-to-zero/max-replicas: "0"`},
		},
		"a typing error": {map[string]string{"cool-down": "5m"}, []string{`annotation scale-to-zero/cool-down: "5m" is not allowed: ` +
			`there is no such setting; there are scale-to-zero/affinity-cookie, scale-to-zero/`}},
	} {
		t.Run(name, func(t *testing.T) {
			annotations := map[string]string{"example.com/cooldown": "x", "scale-to-zero": "x"}
			for key, value := range tc.annotations {
				annotations[Prefix+key] = value
			}
			_, err := ParseSettings(annotations)
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if len(got) != len(tc.want) {
				t.Fatalf("got %q", got)
			}
			for i, want := range tc.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("got %s\nwant %s", got[i], want)
				}
			}
		})
	}
	s, err := ParseSettings(nil)
	want := Settings{Sizes: Sizes{TargetPendingRequests: 100}, Cooldown: 5 * time.Minute, HoldTimeout: 5 * time.Minute}
	if err != nil || s != want {
		t.Errorf("without annotations: %+v, %v", s, err)
	}
}

// TestAdmitChecksWhatIsTakenOver: a Service that its Namespace or an Ingress has opted in shows that by its route alone. Its
// settings are checked as those of one that is opted in itself.
func TestAdmitChecksWhatIsTakenOver(t *testing.T) {
	bad := annotated(Prefix+"cooldown", "soon")
	routed := annotated(RedirectAnnotation, RedirectReady)
	for name, tc := range map[string]struct {
		now, old     []func(*corev1.Service) // of a Service without a label
		created      bool
		byController bool
		denied       bool
	}{
		"taken over, and good":                 {now: nil, old: []func(*corev1.Service){routed}},
		"taken over, and bad":                  {now: []func(*corev1.Service){bad}, old: []func(*corev1.Service){routed}, denied: true},
		"bad, and not taken over":              {now: []func(*corev1.Service){bad}},
		"bad, and new":                         {now: []func(*corev1.Service){bad, routed}, created: true},
		"bad, and says that it is":             {now: []func(*corev1.Service){bad, routed}},
		"taken over, bad, and opted out":       {now: []func(*corev1.Service){bad, label("false")}, old: []func(*corev1.Service){routed}},
		"taken over, bad, and opted out again": {now: []func(*corev1.Service){bad, enabled("false")}, old: []func(*corev1.Service){routed}},
		"opted in itself, and bad":             {now: []func(*corev1.Service){bad, label("true")}, denied: true},
		"a Namespace's setting": {
			now: []func(*corev1.Service){annotated(InternalServicesAnnotation, "true")}, old: []func(*corev1.Service){routed}, denied: true,
		},
		"a port that it has not": {
			now: []func(*corev1.Service){annotated(Prefix+"protocol", "9=tcp")}, old: []func(*corev1.Service){routed}, denied: true,
		},
		"by our controller": {now: []func(*corev1.Service){bad}, old: []func(*corev1.Service){routed}, byController: true},
	} {
		t.Run(name, func(t *testing.T) {
			var old *corev1.Service
			if !tc.created {
				old = service(append([]func(*corev1.Service){unlabelled}, tc.old...)...)
			}
			err := Admit(service(append([]func(*corev1.Service){unlabelled}, tc.now...)...), old, tc.byController)
			if (err != nil) != tc.denied {
				t.Errorf("got %v", err)
			}
		})
	}
}
