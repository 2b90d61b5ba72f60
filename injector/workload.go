package injector

import (
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// WorkloadKinds are the kinds that can be scaled to zero.
func WorkloadKinds() []string { return []string{"Deployment", "StatefulSet"} }

// Workload is what runs the pods behind a Service: what there is to know of it without its kind.
type Workload struct {
	metav1.ObjectMeta

	Kind string
	// PodLabels are those of its pod template.
	PodLabels map[string]string
	// Replicas is what its spec asks for, and ReadyReplicas what there is.
	Replicas, ReadyReplicas int32
}

// NewWorkload returns the Workload of a Deployment, a StatefulSet or a DaemonSet, and false for anything else.
func NewWorkload(object any) (Workload, bool) {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return Workload{o.ObjectMeta, "Deployment", o.Spec.Template.Labels, replicas(o.Spec.Replicas), o.Status.ReadyReplicas}, true
	case *appsv1.StatefulSet:
		return Workload{o.ObjectMeta, "StatefulSet", o.Spec.Template.Labels, replicas(o.Spec.Replicas), o.Status.ReadyReplicas}, true
	case *appsv1.DaemonSet:
		return Workload{o.ObjectMeta, "DaemonSet", o.Spec.Template.Labels, o.Status.DesiredNumberScheduled, o.Status.NumberReady}, true
	default:
		return Workload{}, false
	}
}

// Ref returns how the routes name the workload.
func (w Workload) Ref() api.Workload {
	return api.Workload{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: w.Kind, Name: w.Name, UID: string(w.UID)}
}

func (w Workload) matches(selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := w.PodLabels[k]; !ok || got != v {
			return false
		}
	}
	return len(selector) > 0
}

// replicas is the count of a spec, where nothing means 1.
func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
