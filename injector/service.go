// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// DirectService returns the direct Service of an opted-in Service. It is headless, with the original selector and the same ports, so
// that Kubernetes itself lists the real pods in its EndpointSlices, for each IP family.
//
// If the settings ask for it, the direct Service carries the Service's labels and its annotations for Prometheus too. A monitor finds
// no endpoints for the Service itself while it is injected, and finds them here instead.
func DirectService(service *corev1.Service, s Settings) *corev1.Service {
	ports := make([]corev1.ServicePort, len(service.Spec.Ports))
	for i, p := range service.Spec.Ports {
		p.NodePort = 0
		ports[i] = p
	}
	direct := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       service.Namespace,
			Name:            DirectServiceName(service.Name),
			Labels:          map[string]string{},
			OwnerReferences: []metav1.OwnerReference{OwnerReference(service)},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP:      corev1.ClusterIPNone,
			Selector:       OriginalSelector(service),
			Ports:          ports,
			IPFamilies:     service.Spec.IPFamilies,
			IPFamilyPolicy: service.Spec.IPFamilyPolicy,
			// An app that serves users before it is ready, for example with a page for unsealing or setup, keeps doing so.
			PublishNotReadyAddresses: service.Spec.PublishNotReadyAddresses,
		},
	}
	if s.DirectLabels {
		direct.Labels = others(service.Labels, func(key string) bool { return key != OptInLabel })
		direct.Annotations = others(service.Annotations, func(key string) bool { return strings.HasPrefix(key, "prometheus.io/") })
	}
	maps.Copy(direct.Labels, labels(service.Name, api.RoleDirect))
	return direct
}

// others returns the entries that are not ours and for which keep returns true.
func others(all map[string]string, keep func(key string) bool) map[string]string {
	kept := maps.Clone(all)
	if kept == nil {
		kept = map[string]string{}
	}
	maps.DeleteFunc(kept, func(key, _ string) bool { return strings.HasPrefix(key, Prefix) || !keep(key) })
	return kept
}

// AliasService returns the alias Service of a Service. It has the same ports with the same names and numbers, so that an Ingress's
// backend stays valid when only its Service's name is exchanged. It has no selector, because we write its slices. It has the
// Service's session affinity, and those of its annotations that ingress controllers read.
func AliasService(service *corev1.Service) *corev1.Service {
	alias := DirectService(service, Settings{})
	alias.Name = AliasServiceName(service.Name)
	alias.Labels[api.RoleLabel] = RoleAlias
	alias.Annotations = map[string]string{}
	for key, value := range service.Annotations {
		if forIngressControllers(key, value) {
			alias.Annotations[key] = value
		}
	}
	alias.Spec.ClusterIP, alias.Spec.Selector = "", nil
	alias.Spec.SessionAffinity, alias.Spec.SessionAffinityConfig = service.Spec.SessionAffinity, service.Spec.SessionAffinityConfig
	return alias
}

// bookkeeping reports whether a deployment tool uses the annotation to recognize its own objects.
func bookkeeping(key string) bool {
	domain, _, _ := strings.Cut(key, "/")
	return slices.ContainsFunc([]string{
		"kubectl.kubernetes.io", "meta.helm.sh", "argocd.argoproj.io", "fluxcd.io",
		"deployment.kubernetes.io",
	}, func(tool string) bool {
		return domain == tool || strings.HasSuffix(domain, "."+tool)
	})
}

// OwnerReference makes Kubernetes delete an object together with the Service. It does not block the deletion of the Service, which
// would need permission for services/finalizers.
func OwnerReference(service *corev1.Service) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: "v1", Kind: "Service", Name: service.Name, UID: service.UID, Controller: new(true),
	}
}

// labels returns the labels of an object that we make for a Service. role is its role for the interceptors.
func labels(service, role string) map[string]string {
	return map[string]string{ManagedByLabel: ManagedBy, ServiceLabel: service, api.RoleLabel: role}
}
