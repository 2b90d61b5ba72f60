// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// hint sets the hints by which kube-proxies and others keep a Service's traffic close, as Kubernetes sets them in slices of its own. An
// endpoint without a zone or a node gets none, and then everybody ignores those of the others.
func hint(endpoints []discoveryv1.Endpoint, service *corev1.Service) {
	distribution := distributionOf(service)
	for i := range endpoints {
		e := &endpoints[i]
		e.Hints = nil
		if distribution == "" {
			continue
		}
		var hints discoveryv1.EndpointHints
		if e.Zone != nil {
			hints.ForZones = []discoveryv1.ForZone{{Name: *e.Zone}}
		}
		if e.NodeName != nil && distribution == corev1.ServiceTrafficDistributionPreferSameNode {
			hints.ForNodes = []discoveryv1.ForNode{{Name: *e.NodeName}}
		}
		if hints.ForZones != nil || hints.ForNodes != nil {
			e.Hints = &hints
		}
	}
}

// distributionOf returns the Service's trafficDistribution; empty if it has none that asks to keep traffic close.
func distributionOf(service *corev1.Service) string {
	if service.Spec.TrafficDistribution == nil {
		return ""
	}
	switch d := *service.Spec.TrafficDistribution; d {
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone,
		corev1.ServiceTrafficDistributionPreferSameNode:
		return d
	}
	return ""
}

// Closeness describes how far traffic is kept close, if the Service asks for it, and whether it is not. The note is empty for Services
// that do not ask.
func Closeness(service *corev1.Service, w Workload) (note string, lost bool) {
	if d := distributionOf(service); d != "" {
		where := "in their zone"
		if d == corev1.ServiceTrafficDistributionPreferSameNode {
			where = "on their node"
		}
		return fmt.Sprintf("trafficDistribution is %s. Clients reach an interceptor %s if there is one, and that forwards to any ready "+
			"pod of %s.", d, where, w.Ref()), false
	}
	for _, key := range []string{corev1.AnnotationTopologyMode, corev1.DeprecatedAnnotationTopologyAwareHints} {
		if strings.EqualFold(service.Annotations[key], "auto") {
			return fmt.Sprintf("Annotation %s has no effect while requests go through scale-to-zero. To let clients reach an interceptor in "+
				"their zone if there is one, set the Service's trafficDistribution to PreferSameZone, or to PreferClose before Kubernetes 1.34",
				key), true
		}
	}
	return "", false
}
