// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Values of the readiness setting.
const (
	readinessApp     = "app"     // interceptors run the app's own probes while it starts
	readinessKubelet = "kubelet" // only Kubernetes says which pods are ready
)

// minTrust is the least time that Kubernetes gets to agree that a pod is ready.
const minTrust = 30 * time.Second

// ReadinessOf returns how interceptors find out by themselves that a pod of this template takes requests. It returns nil if only
// Kubernetes can know. ports are those of the Service.
//
// It is nil if a probe runs a command or calls another host, or if something outside the pod decides (readiness gates). It is also
// nil if success would not mean that the app is ready: with the host network, another pod of the node may have opened the port; with
// a tcpSocket probe and initialDelaySeconds, the author knows that the container listens too early; a hook may run before the
// kubelet's first probe; or the container of a served port has no probe.
func ReadinessOf(template *corev1.PodTemplateSpec, ports []corev1.ServicePort) *api.Readiness {
	if template == nil || template.Spec.HostNetwork || len(template.Spec.ReadinessGates) > 0 {
		return nil
	}
	out := &api.Readiness{Trust: api.Duration(minTrust)}
	probed := map[string]bool{}
	for _, c := range runningContainers(template) {
		if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
			return nil
		}
		for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe} {
			if p == nil {
				continue
			}
			probe, ok := newProbe(&c, p)
			if !ok {
				return nil
			}
			probe.Startup = p == c.StartupProbe
			out.Probes = append(out.Probes, probe)
			out.Trust = max(out.Trust, api.Duration(kubeletTime(p)))
			probed[c.Name] = true
		}
	}
	for _, p := range ports {
		if !slices.ContainsFunc(servers(template, p), func(name string) bool { return probed[name] }) {
			return nil
		}
	}
	if out.Check() != nil { // it has no probes, or asks for more than an interceptor does
		return nil
	}
	return out
}

// runningContainers returns the containers that run while the app does: the app's, and init containers with restartPolicy Always.
func runningContainers(template *corev1.PodTemplateSpec) []corev1.Container {
	var out []corev1.Container
	for _, c := range template.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c)
		}
	}
	return append(out, template.Spec.Containers...)
}

// servers returns the names of the containers that serve a port of the Service; none if that is not certain.
func servers(template *corev1.PodTemplateSpec, port corev1.ServicePort) []string {
	containers := runningContainers(template)
	var out []string
	for _, c := range containers {
		if slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return declares(p, port) }) {
			out = append(out, c.Name)
		}
	}
	if len(out) == 0 && len(containers) == 1 {
		out = append(out, containers[0].Name)
	}
	return out
}

// declares reports whether a container's port is the target of the Service's port.
func declares(p corev1.ContainerPort, port corev1.ServicePort) bool {
	switch {
	case p.Protocol != "" && p.Protocol != corev1.ProtocolTCP:
		return false
	case port.TargetPort.Type == intstr.String:
		return p.Name == port.TargetPort.StrVal
	default:
		return p.ContainerPort == cmp.Or(port.TargetPort.IntVal, port.Port)
	}
}

// newProbe translates a probe of container c. ok is false if an interceptor cannot run the probe, or if its success would not prove
// enough.
func newProbe(c *corev1.Container, p *corev1.Probe) (_ api.Probe, ok bool) {
	out := api.Probe{
		Timeout:   api.Duration(time.Duration(max(1, p.TimeoutSeconds)) * time.Second), // the API server's default is 1
		Successes: max(1, p.SuccessThreshold),
	}
	switch {
	case p.HTTPGet != nil:
		if p.HTTPGet.Host != "" {
			return out, false
		}
		out.HTTP = &api.HTTPProbe{HTTPS: p.HTTPGet.Scheme == corev1.URISchemeHTTPS, Path: "/" + strings.TrimPrefix(p.HTTPGet.Path, "/")}
		for _, h := range p.HTTPGet.HTTPHeaders {
			out.HTTP.Headers = append(out.HTTP.Headers, api.Header{Name: h.Name, Value: h.Value})
		}
		out.Port, ok = portOf(c, p.HTTPGet.Port)
	case p.TCPSocket != nil:
		out.Port, ok = portOf(c, p.TCPSocket.Port)
		ok = ok && p.TCPSocket.Host == "" && p.InitialDelaySeconds == 0
	case p.GRPC != nil:
		out.GRPC = &api.GRPCProbe{}
		if p.GRPC.Service != nil {
			out.GRPC.Service = *p.GRPC.Service
		}
		out.Port, ok = p.GRPC.Port, true
	}
	return out, ok && out.Port > 0 && out.Port <= 65535
}

// portOf returns the number of a container's port.
func portOf(c *corev1.Container, port intstr.IntOrString) (int32, bool) {
	if port.Type == intstr.Int {
		return port.IntVal, true
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return p.ContainerPort, true
		}
	}
	return 0, false
}

// kubeletTime returns twice the time that the kubelet may take to notice that a probe succeeds.
func kubeletTime(p *corev1.Probe) time.Duration {
	period := max(1, p.PeriodSeconds)
	if p.PeriodSeconds == 0 {
		period = 10 // the API server's default
	}
	return 2 * time.Second * time.Duration(p.InitialDelaySeconds+(period+max(1, p.TimeoutSeconds))*max(1, p.SuccessThreshold))
}
