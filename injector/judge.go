// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Skip tells the Service's owner why a Service is not injected, and what to do about it. It is empty if nothing prevents the
// injection.
type Skip string

// JudgeService judges the Service by itself. ownNamespace is where scale-to-zero itself runs. onlyIngress is set if only the traffic
// of Ingresses should be redirected, which does not depend on how other clients reach the Service's pods. ingresses are the names of
// the Ingresses that route to the Service.
func JudgeService(service *corev1.Service, ownNamespace string, onlyIngress bool, ingresses []string) Skip {
	spec := &service.Spec
	switch {
	case service.Namespace == metaSystem || service.Namespace == ownNamespace:
		return Skip(fmt.Sprintf("Services in namespace %s are never injected: the cluster, or scale-to-zero itself, depends on them",
			service.Namespace))
	case service.Labels[ManagedByLabel] == ManagedBy:
		return Skip(fmt.Sprintf("its label %s=%s marks what scale-to-zero makes, and this Service is somebody else's; give the label another "+
			"value", ManagedByLabel, ManagedBy))
	case spec.Type == corev1.ServiceTypeExternalName:
		return "it is of type ExternalName: its traffic does not go to pods of this cluster"
	case len(OriginalSelector(service)) == 0:
		return "it has no selector, so its pods are not known; label a Service that selects them"
	case spec.ClusterIP == corev1.ClusterIPNone && !onlyIngress:
		return Skip("it is headless: its clients connect to pods by themselves" + optInIngresses(service, ingresses))
	case !onlyIngress && OnlyByIngress(service):
		return "its internalTrafficPolicy is Local, and there need not be an interceptor on every node; set it to Cluster"
	case len(spec.Ports) == 0:
		return "it has no ports"
	case len(spec.Ports) > MaxPorts:
		return Skip(fmt.Sprintf("it has %d ports, and at most %d are supported, since every interceptor listens on a port for each; "+
			"move those that visitors use to a Service of their own, and label that one", len(spec.Ports), MaxPorts))
	}
	for _, p := range spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			return Skip(fmt.Sprintf("its port %s is %s, and only TCP can be held; move that port to a Service of its own", portName(p), p.Protocol))
		}
	}
	return ""
}

// OnlyByIngress reports whether a Service cannot be injected itself, but the traffic that reaches it through Ingresses can.
func OnlyByIngress(service *corev1.Service) bool {
	local := service.Spec.InternalTrafficPolicy
	return service.Spec.ClusterIP == corev1.ClusterIPNone || local != nil && *local == corev1.ServiceInternalTrafficPolicyLocal
}

// optInIngresses says how to opt in the traffic that reaches a headless Service through Ingresses.
func optInIngresses(service *corev1.Service, ingresses []string) string {
	if len(ingresses) == 0 {
		return ". If visitors come through an Ingress, label the Ingress instead; otherwise label a Service with a cluster IP"
	}
	return fmt.Sprintf(". Visitors come through an Ingress: kubectl label ingress -n %s %s %s=true",
		service.Namespace, strings.Join(ingresses, " "), OptInLabel)
}

const metaSystem = "kube-system"

// MaxPorts is how many ports an injected Service may have. Every interceptor opens a listener for each port.
const MaxPorts = api.MaxPorts

func portName(p corev1.ServicePort) string {
	if p.Name != "" {
		return fmt.Sprintf("%s (%d)", p.Name, p.Port)
	}
	return fmt.Sprint(p.Port)
}

// speaksHTTP reads a port's appProtocol or, if it has none, the port's name, which by convention begins with the protocol.
func speaksHTTP(p corev1.ServicePort) bool {
	if p.AppProtocol != nil {
		return appProtocol(*p.AppProtocol) == api.ProtocolHTTP
	}
	return strings.HasPrefix(strings.ToLower(p.Name), "http")
}

// Siblings returns the names of the Services that select the workload's pods and are not opted in. Their clients find no pod while
// the workload sleeps. all has every Service that may select the pods, and in reports whether a Service is opted in.
func Siblings(w Workload, all []corev1.Service, in func(*corev1.Service) bool) []string {
	var siblings []string
	for i := range all {
		s := &all[i]
		if s.Labels[ManagedByLabel] != ManagedBy && s.DeletionTimestamp.IsZero() && w.matches(OriginalSelector(s)) && !in(s) {
			siblings = append(siblings, s.Name)
		}
	}
	slices.Sort(siblings)
	return siblings
}

// FindWorkload returns the workload behind the Service: the one that the settings name, or else the only one whose pods match the
// Service's selector. candidates are all possible workloads.
func FindWorkload(service *corev1.Service, s Settings, candidates []Workload) (Workload, Skip) {
	if s.Workload != "" {
		i := slices.IndexFunc(candidates, func(w Workload) bool { return w.Ref().String() == s.Workload })
		if i < 0 {
			return Workload{}, Skip(fmt.Sprintf("there is no %s, which annotation %sworkload names; it is injected once there is",
				s.Workload, Prefix))
		}
		return candidates[i], ""
	}
	selector := OriginalSelector(service)
	var scalable, other []Workload
	for _, w := range candidates {
		switch {
		case !w.matches(selector):
		case slices.Contains(WorkloadKinds(), w.Kind):
			scalable = append(scalable, w)
		default:
			other = append(other, w)
		}
	}
	switch {
	case len(scalable) == 1 && len(other) == 0:
		return scalable[0], ""
	case len(scalable) == 0 && len(other) == 0:
		return Workload{}, Skip(fmt.Sprintf("no Deployment or StatefulSet has pods that its selector %s matches; "+
			"it is injected once there is one, or annotation %sworkload names another kind", selectorText(selector), Prefix))
	case len(scalable) == 0:
		return Workload{}, Skip(fmt.Sprintf("its pods are those of %s, which cannot be scaled to zero", names(other)))
	default:
		return Workload{}, Skip(fmt.Sprintf("its selector matches the pods of %s; name one with annotation %sworkload",
			names(append(scalable, other...)), Prefix))
	}
}

func names(ws []Workload) string {
	s := make([]string, len(ws))
	for i, w := range ws {
		s[i] = w.Ref().String()
	}
	slices.Sort(s)
	return strings.Join(s, " and ")
}

func selectorText(selector map[string]string) string {
	s := make([]string, 0, len(selector))
	for k, v := range selector {
		s = append(s, k+"="+v)
	}
	slices.Sort(s)
	return strings.Join(s, ",")
}
