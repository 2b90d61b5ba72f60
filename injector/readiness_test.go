// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// podTemplate returns a template with one container. It serves the port http, 8080, and has a readiness probe with the API server's
// defaults.
func podTemplate(change ...func(*corev1.PodTemplateSpec)) *corev1.PodTemplateSpec {
	t := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "app", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		ReadinessProbe: get("/ready", intstr.FromString("http")),
	}}}}
	for _, c := range change {
		c(t)
	}
	return t
}

func get(path string, port intstr.IntOrString) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:   corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: port, Scheme: corev1.URISchemeHTTP}},
		TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3,
	}
}

func connects(port int, delay int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:        corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port)}},
		InitialDelaySeconds: delay,
	}
}

// app changes the serving container.
func app(change func(*corev1.Container)) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) { change(&t.Spec.Containers[0]) }
}

// beside adds a container.
func beside(c corev1.Container) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) { t.Spec.Containers = append(t.Spec.Containers, c) }
}

// TestReadinessUnknown tests that interceptors do not probe a pod if only Kubernetes can know whether it is ready.
func TestReadinessUnknown(t *testing.T) {
	command := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}
	for name, template := range map[string]*corev1.PodTemplateSpec{
		"a custom resource": nil,
		"no probe":          podTemplate(app(func(c *corev1.Container) { c.ReadinessProbe = nil })),
		"a command":         podTemplate(app(func(c *corev1.Container) { c.ReadinessProbe = command })),
		"a command at the start": podTemplate(app(func(c *corev1.Container) {
			c.StartupProbe = command
		})),
		"a sidecar's command": podTemplate(beside(corev1.Container{Name: "proxy", ReadinessProbe: command})),
		"a sidecar's command, among the init containers": podTemplate(func(t *corev1.PodTemplateSpec) {
			t.Spec.InitContainers = []corev1.Container{{
				Name: "proxy", RestartPolicy: new(corev1.ContainerRestartPolicyAlways), StartupProbe: command,
			}}
		}),
		"a readiness gate": podTemplate(func(t *corev1.PodTemplateSpec) {
			t.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/in-service"}}
		}),
		"the network of the node": podTemplate(func(t *corev1.PodTemplateSpec) { t.Spec.HostNetwork = true }),
		"another host": podTemplate(app(func(c *corev1.Container) {
			c.ReadinessProbe.HTTPGet.Host = "192.0.2.1"
		})),
		"another host's port": podTemplate(app(func(c *corev1.Container) {
			c.ReadinessProbe = connects(8080, 0)
			c.ReadinessProbe.TCPSocket.Host = "192.0.2.1"
		})),
		"a connection, and a delay": podTemplate(app(func(c *corev1.Container) { c.ReadinessProbe = connects(8080, 5) })),
		"a port without a number":   podTemplate(app(func(c *corev1.Container) { c.ReadinessProbe = get("/", intstr.FromString("none")) })),
		"a port that is none":       podTemplate(app(func(c *corev1.Container) { c.ReadinessProbe = get("/", intstr.FromInt(0)) })),
		"a hook at the start": podTemplate(app(func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"seed"}}}}
		})),
		"the probe is another container's": podTemplate(
			app(func(c *corev1.Container) { c.ReadinessProbe = nil }),
			beside(corev1.Container{Name: "proxy", ReadinessProbe: get("/", intstr.FromInt(15021))}),
		),
		"it is not known which container serves": podTemplate(
			app(func(c *corev1.Container) { c.Ports, c.ReadinessProbe = nil, get("/", intstr.FromInt(8080)) }),
			beside(corev1.Container{Name: "proxy"}),
		),
		"a probe of an unknown kind": podTemplate(app(func(c *corev1.Container) { c.ReadinessProbe = &corev1.Probe{} })),
	} {
		t.Run(name, func(t *testing.T) {
			if got := ReadinessOf(template, []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}); got != nil {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestReadiness(t *testing.T) {
	ready := api.Probe{HTTP: &api.HTTPProbe{Path: "/ready"}, Port: 8080, Timeout: api.Duration(time.Second), Successes: 1}
	with := func(change func(*api.Probe)) api.Probe {
		p := ready
		change(&p)
		return p
	}
	for name, tc := range map[string]struct {
		template *corev1.PodTemplateSpec
		want     []api.Probe
		trust    time.Duration
	}{
		"an HTTP GET": {podTemplate(), []api.Probe{ready}, minTrust},
		"a startup probe first": {podTemplate(app(func(c *corev1.Container) {
			c.StartupProbe = get("started?full=1", intstr.FromInt(9000))
			c.StartupProbe.PeriodSeconds, c.StartupProbe.InitialDelaySeconds = 30, 20
		})), []api.Probe{
			with(func(p *api.Probe) { p.Startup, p.Port, p.HTTP = true, 9000, &api.HTTPProbe{Path: "/started?full=1"} }), ready,
		}, 102 * time.Second},
		"a startup probe alone": {podTemplate(app(func(c *corev1.Container) {
			c.StartupProbe, c.ReadinessProbe = c.ReadinessProbe, nil
		})), []api.Probe{with(func(p *api.Probe) { p.Startup = true })}, minTrust},
		"HTTPS, header fields, thresholds": {podTemplate(app(func(c *corev1.Container) {
			c.ReadinessProbe.HTTPGet.Scheme = corev1.URISchemeHTTPS
			c.ReadinessProbe.HTTPGet.HTTPHeaders = []corev1.HTTPHeader{{Name: "Host", Value: "app.example"}}
			c.ReadinessProbe.TimeoutSeconds, c.ReadinessProbe.SuccessThreshold = 3, 4
			c.ReadinessProbe.InitialDelaySeconds = 600 // interceptors do not wait for it
		})), []api.Probe{with(func(p *api.Probe) {
			p.HTTP = &api.HTTPProbe{HTTPS: true, Path: "/ready", Headers: []api.Header{{Name: "Host", Value: "app.example"}}}
			p.Timeout, p.Successes = api.Duration(3*time.Second), 4
		})}, 1304 * time.Second},
		"a connection": {podTemplate(app(func(c *corev1.Container) { c.ReadinessProbe = connects(8080, 0) })), []api.Probe{
			with(func(p *api.Probe) { p.HTTP = nil }),
		}, minTrust},
		"gRPC": {podTemplate(app(func(c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 8080, Service: new("db")}}}
		})), []api.Probe{with(func(p *api.Probe) { p.HTTP, p.GRPC = nil, &api.GRPCProbe{Service: "db"} })}, minTrust},
		"of all containers": {podTemplate(func(t *corev1.PodTemplateSpec) {
			t.Spec.InitContainers = []corev1.Container{
				{Name: "migrates"},
				{
					Name: "proxy", RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
					ReadinessProbe: get("/proxy", intstr.FromInt(15021)),
				},
			}
		}, beside(corev1.Container{Name: "logs"})), []api.Probe{
			with(func(p *api.Probe) { p.Port, p.HTTP = 15021, &api.HTTPProbe{Path: "/proxy"} }), ready,
		}, minTrust},
		"a port that nobody declares, of the only container": {
			podTemplate(app(func(c *corev1.Container) { c.Ports, c.ReadinessProbe = nil, get("/ready", intstr.FromInt(8080)) })),
			[]api.Probe{ready},
			minTrust,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := ReadinessOf(tc.template, []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}})
			if d := cmp.Diff(&api.Readiness{Probes: tc.want, Trust: api.Duration(tc.trust)}, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			// The interceptors can read what the controller writes.
			s := service(func(s *corev1.Service) {
				s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}}
			})
			w := workload("Deployment", "web", nil)
			w.Template = tc.template
			encoded := encodeRoutes(NewRoutes(s, DefaultSettings(), w, map[string]int32{"http": 10000}))
			if routes, err := api.DecodeRoutes(encoded); err != nil || !cmp.Equal(routes.Readiness, got) {
				t.Errorf("decoded as %+v, %v", routes.Readiness, err)
			}
		})
	}
}

// TestServedPorts tests that each target port of the Service has to belong to a container with a probe.
func TestServedPorts(t *testing.T) {
	template := podTemplate(beside(corev1.Container{
		Name: "admin", Ports: []corev1.ContainerPort{
			{Name: "admin", ContainerPort: 9000}, {Name: "dns", ContainerPort: 80, Protocol: corev1.ProtocolUDP},
		},
	}))
	for name, tc := range map[string]struct {
		ports []corev1.ServicePort
		want  bool
	}{
		"by name":           {[]corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}, true},
		"by number":         {[]corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt(8080)}}, true},
		"by the same":       {[]corev1.ServicePort{{Port: 8080}}, true},
		"another container": {[]corev1.ServicePort{{Port: 9000}}, false},
		"both":              {[]corev1.ServicePort{{Port: 8080}, {Port: 9000}}, false},
		"nobody's":          {[]corev1.ServicePort{{Port: 81}}, false},
		"of UDP":            {[]corev1.ServicePort{{Port: 80}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ReadinessOf(template, tc.ports); (got != nil) != tc.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestReadinessSetting tests that an owner may leave the decision to Kubernetes.
func TestReadinessSetting(t *testing.T) {
	w := workload("Deployment", "web", nil)
	w.Template = podTemplate()
	for value, want := range map[string]bool{"": true, "app": true, "kubelet": false} {
		annotations := map[string]string{}
		if value != "" {
			annotations[Prefix+"readiness"] = value
		}
		s, err := ParseSettings(annotations)
		if err != nil {
			t.Fatal(err)
		}
		sv := service(func(s *corev1.Service) { s.Spec.Ports = []corev1.ServicePort{{Port: 8080}} })
		if got := NewRoutes(sv, s, w, nil); (got.Readiness != nil) != want {
			t.Errorf("%q: got %+v", value, got.Readiness)
		}
	}
	if _, err := ParseSettings(map[string]string{Prefix + "readiness": "always"}); err == nil {
		t.Error("always is allowed")
	}
}
