// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// randomly makes objects that the API server accepts.
type randomly struct{ *rand.Rand }

func oneOf[T any](r randomly, of ...T) T { return of[r.IntN(len(of))] }

// label returns a label of RFC 1123.
func (r randomly) label(longest int) string {
	const inside = "abcdefghijklmnopqrstuvwxyz0123456789-"
	n := oneOf(r, 1, 2, 1+r.IntN(longest), longest)
	b := make([]byte, n)
	for i := range b {
		b[i] = inside[r.IntN(len(inside))]
		if i == 0 || i == n-1 {
			b[i] = inside[r.IntN(len(inside)-1)]
		}
	}
	return string(b)
}

func (r randomly) subdomain() string {
	return oneOf(r, r.label(63), r.label(60)+"."+r.label(60), strings.Repeat("a.", 126)+"a")
}

func (r randomly) service() *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: r.label(63), UID: types.UID(fmt.Sprintf("%x-%x", r.Uint64(), r.Uint64())),
	}}
	s.Spec.Selector = map[string]string{"app": "web"}
	s.Spec.Type = oneOf(r, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer)
	s.Spec.ClusterIPs = oneOf(r, nil, []string{"None"}, []string{"10.0.0.1"}, []string{"10.0.0.1", "fd00::1"})
	s.Spec.SessionAffinity = oneOf(r, corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP)
	for i := range oneOf(r, 1, 1, 2, MaxPorts) {
		p := corev1.ServicePort{Port: int32(1 + r.IntN(65535)), AppProtocol: oneOf(r, nil, new("http"), new("tcp"), new("kubernetes.io/h2c"))}
		p.TargetPort = oneOf(r, intstr.FromInt32(8080), intstr.FromString("web"))
		p.Name = fmt.Sprint("p", i)
		if i > 0 {
			p.Name = r.label(50) + fmt.Sprint("-", i)
		}
		s.Spec.Ports = append(s.Spec.Ports, p)
	}
	if len(s.Spec.Ports) == 1 {
		s.Spec.Ports[0].Name = oneOf(r, "", "http", r.label(63))
	}
	return s
}

func (r randomly) probe() *corev1.Probe {
	p := &corev1.Probe{
		TimeoutSeconds: oneOf(r, 0, 1, 3601, int32(1<<31-1)), PeriodSeconds: oneOf(r, 0, 10, int32(1<<30)),
		SuccessThreshold: oneOf(r, 0, 1, 1001, int32(1<<30)), InitialDelaySeconds: oneOf(r, 0, int32(1<<30)),
	}
	port := oneOf(r, intstr.FromInt32(8080), intstr.FromString("web"), intstr.FromString("none"))
	switch r.IntN(4) {
	case 0:
		p.HTTPGet = &corev1.HTTPGetAction{
			Path: oneOf(r, "", "/", "healthz", "//host/", "/a b?c=d#e", "/\r\nHost: x", "/\x00", "/\xff",
				"/"+strings.Repeat("a", 5000)), Port: port,
			HTTPHeaders: oneOf(r, nil, []corev1.HTTPHeader{{Name: "A", Value: strings.Repeat("b", 5000)}},
				[]corev1.HTTPHeader{{Name: "Host", Value: "a"}}, make([]corev1.HTTPHeader, 65), []corev1.HTTPHeader{{Name: "a b", Value: "c\r\nd"}}),
		}
	case 1:
		p.TCPSocket = &corev1.TCPSocketAction{Port: port}
	case 2:
		p.GRPC = &corev1.GRPCAction{Port: 8080, Service: oneOf(r, nil, new("s"), new(strings.Repeat("s", 2000)), new("\xff"))}
	case 3:
		return nil
	}
	return p
}

func (r randomly) workload() Workload {
	w := Workload{
		ObjectMeta: metav1.ObjectMeta{Name: r.subdomain(), UID: types.UID(r.label(36))}, APIVersion: appsVersion, Selector: "app=web",
	}
	w.Kind = oneOf(r, WorkloadKinds()...)
	if r.IntN(3) == 0 {
		w.APIVersion, w.Kind, w.Resource = r.subdomain()+"/v1alpha1", "Rollout", "rollouts"
		return w
	}
	w.Template = &corev1.PodTemplateSpec{}
	for i := range 1 + r.IntN(3) {
		w.Template.Spec.Containers = append(w.Template.Spec.Containers, corev1.Container{
			Name: fmt.Sprint("c", i), Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}},
			ReadinessProbe: r.probe(), StartupProbe: r.probe(),
		})
	}
	return w
}

func (r randomly) annotations() map[string]string {
	all := map[string][]string{
		"cooldown": {"1s", "720h", "90s"}, "hold-timeout": {"1s", "1h"}, "protocol": {"http", "tcp", "auto"}, "waiting-page": {"always", "never"},
		"ignore-paths": {"/a,/b*", "/healthz"}, "ignore-user-agents": {"none", "*Acme,none"}, "affinity-cookie": {"auto", "sid"},
		"wake-with": {"api,db"}, "awake": {"always", "Mon-Fri 08:00-18:30 Asia/Seoul"}, "max-pending-per-pod": {"1", "100000"},
		"busy-cpu": {"200m"}, "readiness": {"app", "kubelet"}, "proxy-protocol": {"2"}, "learn": {"false"}, "min-replicas": {"0", "1"},
	}
	out := map[string]string{}
	for key, values := range all {
		if r.IntN(2) == 0 {
			out[Prefix+key] = oneOf(r, values...)
		}
	}
	return out
}

// TestNewRoutesDecode tests that interceptors, which read strictly, read whatever the injector writes.
func TestNewRoutesDecode(t *testing.T) {
	probed := 0
	for seed := range uint64(2000) {
		r := randomly{rand.New(rand.NewPCG(seed, 1))}
		service, w := r.service(), r.workload()
		settings, err := ParseSettings(r.annotations())
		if err != nil {
			t.Fatal(err)
		}
		listen := map[string]int32{}
		for i, p := range service.Spec.Ports {
			listen[p.Name] = int32(oneOf(r, api.MinListen, 65535-MaxPorts) + i)
		}
		routes := NewRoutes(service, settings, w, listen)
		routes.Reach = ReachOf(service, []networkingv1.Ingress{{Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{
			Host: oneOf(r, "*.example.com", "a.example", ""),
			IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
				Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service.Name}},
			}}}},
		}}}}})
		if r.IntN(2) == 0 {
			routes.Gone = routes.Workload.String() + " does not exist any more"
		}
		if routes.Readiness != nil {
			probed++
		}
		got, err := api.DecodeRoutes(encodeRoutes(routes))
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, encodeRoutes(routes))
		}
		if diff := cmp.Diff(routes, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
	}
	if probed == 0 {
		t.Error("no app has probes")
	}
}
