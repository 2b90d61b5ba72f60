// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestProbesOfCharts tests which pods of usual charts the interceptors probe by themselves, and by how many probes.
func TestProbesOfCharts(t *testing.T) {
	grpc := func(port int32, service *string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port, Service: service}}}
	}
	exec := &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sleep", "5"}}}
	inits := func(policy *corev1.ContainerRestartPolicy) func(*corev1.PodTemplateSpec) {
		return func(t *corev1.PodTemplateSpec) {
			t.Spec.InitContainers = []corev1.Container{{Name: "init", RestartPolicy: policy, ReadinessProbe: get("/", intstr.FromInt(9000))}}
		}
	}
	readiness := func(p *corev1.Probe) func(*corev1.PodTemplateSpec) {
		return app(func(c *corev1.Container) { c.ReadinessProbe = p })
	}
	for name, tc := range map[string]struct {
		change []func(*corev1.PodTemplateSpec)
		want   int // 0 means that only Kubernetes knows
	}{
		"a hook before it ends": {
			[]func(*corev1.PodTemplateSpec){app(func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{PreStop: exec} })}, 1,
		},
		"a hook after it starts": {
			[]func(*corev1.PodTemplateSpec){app(func(c *corev1.Container) { c.Lifecycle = &corev1.Lifecycle{PostStart: exec} })}, 0,
		},
		"a hook of a container beside it": {
			[]func(*corev1.PodTemplateSpec){beside(corev1.Container{Name: "x", Lifecycle: &corev1.Lifecycle{PostStart: exec}})}, 0,
		},
		"an init container":                     {[]func(*corev1.PodTemplateSpec){inits(nil)}, 1},
		"an init container that is tried again": {[]func(*corev1.PodTemplateSpec){inits(new(corev1.ContainerRestartPolicyOnFailure))}, 1},
		"a sidecar":                             {[]func(*corev1.PodTemplateSpec){inits(new(corev1.ContainerRestartPolicyAlways))}, 2},
		"gRPC, of the server as a whole":        {[]func(*corev1.PodTemplateSpec){readiness(grpc(8080, nil))}, 1},
		"gRPC, without a port":                  {[]func(*corev1.PodTemplateSpec){readiness(grpc(0, nil))}, 0},
		"the highest port":                      {[]func(*corev1.PodTemplateSpec){readiness(get("/", intstr.FromInt(65535)))}, 1},
		"a port beyond":                         {[]func(*corev1.PodTemplateSpec){readiness(get("/", intstr.FromInt(65536)))}, 0},
		"a port below":                          {[]func(*corev1.PodTemplateSpec){readiness(get("/", intstr.FromInt(-1)))}, 0},
		"another port's name": {
			[]func(*corev1.PodTemplateSpec){app(func(c *corev1.Container) {
				c.Ports = append([]corev1.ContainerPort{{Name: "metrics", ContainerPort: 9090}}, c.Ports...)
				c.ReadinessProbe = get("/", intstr.FromString("metrics"))
			})}, 1,
		},
		"a connection to a port by its name": {
			[]func(*corev1.PodTemplateSpec){readiness(&corev1.Probe{ProbeHandler: corev1.ProbeHandler{
				TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("http")},
			}})}, 1,
		},
		"a connection to a name that there is not": {
			[]func(*corev1.PodTemplateSpec){readiness(&corev1.Probe{ProbeHandler: corev1.ProbeHandler{
				TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("https")},
			}})}, 0,
		},
		"a port that says it is TCP": {[]func(*corev1.PodTemplateSpec){app(func(c *corev1.Container) {
			c.Ports[0].Protocol = corev1.ProtocolTCP
		})}, 1},
		"a port of the same name that is UDP": {[]func(*corev1.PodTemplateSpec){app(func(c *corev1.Container) {
			c.Ports[0].Protocol, c.ReadinessProbe = corev1.ProtocolUDP, get("/", intstr.FromInt(8080))
		}), beside(corev1.Container{Name: "x"})}, 0},
		"two containers that share the load": {[]func(*corev1.PodTemplateSpec){beside(corev1.Container{
			Name: "twin", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8081}},
		})}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := ReadinessOf(podTemplate(tc.change...), []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}})
			switch {
			case tc.want == 0 && got != nil:
				t.Errorf("it is probed by %+v", got)
			case tc.want > 0 && (got == nil || len(got.Probes) != tc.want):
				t.Errorf("got %+v, want %d probes", got, tc.want)
			}
		})
	}
}

// TestTrust tests for how long the interceptors trust their own probes before Kubernetes has to agree: twice as long as the slowest
// probe takes the kubelet.
func TestTrust(t *testing.T) {
	slow := func(delay, period, timeout, successes int32) func(*corev1.Container) {
		return func(c *corev1.Container) {
			p := c.ReadinessProbe
			p.InitialDelaySeconds, p.PeriodSeconds, p.TimeoutSeconds, p.SuccessThreshold = delay, period, timeout, successes
		}
	}
	for name, tc := range map[string]struct {
		change func(*corev1.Container)
		want   time.Duration
	}{
		"the API server's defaults": {slow(0, 10, 1, 1), minTrust},
		"nothing is set":            {slow(0, 0, 0, 0), minTrust},
		"nothing but a delay":       {slow(20, 0, 0, 0), 62 * time.Second},
		"a long period":             {slow(0, 60, 1, 1), 122 * time.Second},
		"a period of a second":      {slow(14, 1, 1, 1), 32 * time.Second},
		"a long timeout":            {slow(0, 10, 30, 1), 80 * time.Second},
		"three times in a row":      {slow(5, 10, 2, 3), 82 * time.Second},
		"a fast one after a slow one": {func(c *corev1.Container) {
			c.StartupProbe = get("/", intstr.FromInt(8080))
			c.StartupProbe.PeriodSeconds = 30
		}, 62 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			got := ReadinessOf(podTemplate(app(tc.change)), []corev1.ServicePort{{Port: 8080}})
			if got == nil || got.Trust != api.Duration(tc.want) {
				t.Errorf("got %+v, want %s", got, tc.want)
			}
		})
	}
}

// TestProbePaths tests that a path is the same with and without its slash, as the kubelet has it.
func TestProbePaths(t *testing.T) {
	for path, want := range map[string]string{"": "/", "/": "/", "health": "/health", "/health?full=1": "/health?full=1", "//x": "//x"} {
		template := podTemplate(app(func(c *corev1.Container) { c.ReadinessProbe = get(path, intstr.FromInt(8080)) }))
		got := ReadinessOf(template, []corev1.ServicePort{{Port: 8080}})
		if got == nil || got.Probes[0].HTTP.Path != want {
			t.Errorf("%q: got %+v, want %s", path, got, want)
		}
	}
}
