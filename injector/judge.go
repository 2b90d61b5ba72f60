package injector

import (
	"fmt"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// Skip says why a Service is not taken over, and what to do about it, in words for the Service's owner. Empty means
// that nothing stands against it.
type Skip string

// JudgeService looks at the Service alone. ownNamespace is where scale-to-zero itself runs.
func JudgeService(service *corev1.Service, ownNamespace string) Skip {
	spec := &service.Spec
	switch {
	case service.Namespace == metaSystem || service.Namespace == ownNamespace:
		return Skip(fmt.Sprintf("Services in namespace %s are never taken over: the cluster, or scale-to-zero itself, depends on them", service.Namespace))
	case service.Labels[ManagedByLabel] == ManagedBy:
		return "it is one of scale-to-zero's own Services"
	case spec.Type == corev1.ServiceTypeExternalName:
		return "it is of type ExternalName: its traffic does not go to pods of this cluster"
	case len(OriginalSelector(service)) == 0:
		return "it has no selector, so its pods are not known; label a Service that selects them"
	case spec.ClusterIP == corev1.ClusterIPNone:
		return "it is headless: its clients connect to pods by themselves; label a Service with a cluster IP"
	case spec.InternalTrafficPolicy != nil && *spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal:
		return "its internalTrafficPolicy is Local, and there need not be an interceptor on every node; set it to Cluster"
	case len(spec.Ports) == 0:
		return "it has no ports"
	}
	for _, p := range spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			return Skip(fmt.Sprintf("its port %s is %s, and only TCP can be held; move that port to a Service of its own", portName(p), p.Protocol))
		}
	}
	return ""
}

const metaSystem = "kube-system"

func portName(p corev1.ServicePort) string {
	if p.Name != "" {
		return fmt.Sprintf("%s (%d)", p.Name, p.Port)
	}
	return fmt.Sprint(p.Port)
}

// FindWorkload returns the workload that the Service sends traffic to: the one that its settings name, else the only one
// whose pods its selector matches. candidates are all the workloads of its namespace.
func FindWorkload(service *corev1.Service, s Settings, candidates []Workload) (Workload, Skip) {
	if s.WorkloadName != "" {
		i := slices.IndexFunc(candidates, func(w Workload) bool { return w.Kind == s.WorkloadKind && w.Name == s.WorkloadName })
		if i < 0 {
			return Workload{}, Skip(fmt.Sprintf("there is no %s/%s, which annotation %sworkload names", s.WorkloadKind, s.WorkloadName, Prefix))
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
		return Workload{}, Skip(fmt.Sprintf("no Deployment or StatefulSet has pods that its selector %s matches; it is taken over when there is one", selectorText(selector)))
	case len(scalable) == 0:
		return Workload{}, Skip(fmt.Sprintf("its pods are those of %s, which cannot be scaled to zero", names(other)))
	default:
		return Workload{}, Skip(fmt.Sprintf("its selector matches the pods of %s; name one with annotation %sworkload", names(append(scalable, other...)), Prefix))
	}
}

// JudgeWorkload says whether somebody else scales the workload already: KEDA refuses two ScaledObjects on one workload,
// and two HPAs undo each other. hpas and scaledObjects are all those of its namespace.
func JudgeWorkload(w Workload, hpas []autoscalingv2.HorizontalPodAutoscaler, scaledObjects []keda.ScaledObject) Skip {
	ours := ScaledObjectName(w.Ref())
	for i := range scaledObjects {
		so := &scaledObjects[i]
		if so.Name != ours && so.Spec.ScaleTargetRef.Name == w.Name && so.Spec.ScaleTargetRef.TargetKind() == w.Kind {
			return Skip(fmt.Sprintf("ScaledObject %s scales %s already; delete it, or leave %s to it by removing the label", so.Name, w.Ref(), w.Ref()))
		}
		if so.Name == ours && so.Labels[ManagedByLabel] != ManagedBy {
			return Skip(fmt.Sprintf("there is a ScaledObject %s that is not scale-to-zero's; rename or delete it", so.Name))
		}
	}
	for i := range hpas {
		hpa := &hpas[i]
		target := hpa.Spec.ScaleTargetRef
		if hpa.Name != "keda-hpa-"+ours && target.Name == w.Name && target.Kind == w.Kind {
			return Skip(fmt.Sprintf("HorizontalPodAutoscaler %s scales %s already; delete it, and set annotation %smax-replicas to go on scaling by load", hpa.Name, w.Ref(), Prefix))
		}
	}
	return ""
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
