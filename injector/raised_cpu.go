// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// RaisedCPU is the key of the mark of a pod whose CPU limits are raised while it starts: of a label by which such pods are found, and
// of an annotation that says how to put the limits back. The pod gets the mark before its limits change and loses it after they are
// back, so whoever finds the mark, at whatever step the last controller died, can finish.
const RaisedCPU = Prefix + "raised-cpu"

// PodResize changes the CPU limits of one pod, in the order of the fields.
type PodResize struct {
	Pod *corev1.Pod
	// Mark is the annotation to write, together with the label. It is empty if the pod has it.
	Mark   string
	Limits []CPULimit
	// Unmark removes label and annotation. It is set if the limits are put back.
	Unmark bool
}

// CPULimit is the new CPU limit of one container.
type CPULimit struct {
	Container string
	Init      bool
	Value     resource.Quantity
}

// cpuMark is the content of the annotation RaisedCPU.
type cpuMark struct {
	// Workload is the pod's workload, in the format of api.Workload.String.
	Workload string `json:"workload"`
	// To is the raised limit, and From are the limits before, by container.
	To   resource.Quantity            `json:"to"`
	From map[string]resource.Quantity `json:"from"`
}

// markOf reads a pod's mark. A mark that would raise a limit when it is put back is forged: whoever may annotate a pod could get more
// CPU that way.
func markOf(pod *corev1.Pod) (cpuMark, bool) {
	var mark cpuMark
	if err := json.Unmarshal([]byte(pod.Annotations[RaisedCPU]), &mark); err != nil || mark.Workload == "" || len(mark.From) == 0 {
		return mark, false
	}
	for _, before := range mark.From {
		if before.Sign() <= 0 || before.Cmp(mark.To) >= 0 {
			return mark, false
		}
	}
	return mark, true
}

// MarkedFor returns the workload of a pod that has the mark. It returns false for other pods, and for one that has ended or is being
// deleted: it takes its limits with it.
func MarkedFor(pod *corev1.Pod) (string, bool) {
	mark, ok := markOf(pod)
	return mark.Workload, ok && !ended(pod)
}

func ended(pod *corev1.Pod) bool {
	return !pod.DeletionTimestamp.IsZero() || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// PutBack plans for pods with the mark whose workload is gone.
func PutBack(pods []corev1.Pod) []PodResize {
	var out []PodResize
	for i := range pods {
		if mark, ok := markOf(&pods[i]); ok && !ended(&pods[i]) {
			out = append(out, putBack(&pods[i], mark))
		}
	}
	return out
}

// putBack leaves limits alone that somebody has changed meanwhile.
func putBack(pod *corev1.Pod, mark cpuMark) PodResize {
	return PodResize{Pod: pod, Limits: mark.limits(pod, mark.raised), Unmark: true}
}

// raised returns the limit to put back if a container's limit is as we have set it.
func (m cpuMark) raised(name string, now resource.Quantity) (resource.Quantity, bool) {
	before, ours := m.From[name]
	return before, ours && now.Cmp(m.To) == 0
}

// untouched returns the limit to set if a container's limit is as it was before.
func (m cpuMark) untouched(name string, now resource.Quantity) (resource.Quantity, bool) {
	before, ours := m.From[name]
	return m.To, ours && now.Cmp(before) == 0
}

// limits returns the limits to set. pick decides by the name of a container and its present limit.
func (m cpuMark) limits(pod *corev1.Pod, pick func(name string, now resource.Quantity) (resource.Quantity, bool)) []CPULimit {
	var out []CPULimit
	for c, init := range resizable(pod) {
		if to, ok := pick(c.Name, c.Resources.Limits[corev1.ResourceCPU]); ok {
			out = append(out, CPULimit{Container: c.Name, Init: init, Value: to})
		}
	}
	return out
}

// resizable iterates over the containers whose limits can be raised for a start, and says which are init containers. Of these it
// returns the sidecars only: before Kubernetes 1.36, one other init container would make the API server refuse the whole resize.
func resizable(pod *corev1.Pod) func(yield func(c *corev1.Container, init bool) bool) {
	return func(yield func(*corev1.Container, bool) bool) {
		for i := range pod.Spec.InitContainers {
			if c := &pod.Spec.InitContainers[i]; sidecar(pod, c.Name) && !yield(c, true) {
				return
			}
		}
		for i := range pod.Spec.Containers {
			if !yield(&pod.Spec.Containers[i], false) {
				return
			}
		}
	}
}

// newMark returns the mark of a pod whose lower CPU limits are raised to want. It also returns the containers that this would
// restart.
func newMark(w Workload, pod *corev1.Pod, want resource.Quantity) (_ cpuMark, restarting []string) {
	mark := cpuMark{Workload: w.Ref().String(), To: want, From: map[string]resource.Quantity{}}
	for c := range resizable(pod) {
		limit, limited := c.Resources.Limits[corev1.ResourceCPU]
		switch {
		case !limited || limit.Cmp(want) >= 0:
		case slices.ContainsFunc(c.ResizePolicy, func(r corev1.ContainerResizePolicy) bool {
			return r.ResourceName == corev1.ResourceCPU && r.RestartPolicy == corev1.RestartContainer
		}):
			restarting = append(restarting, c.Name)
		default:
			mark.From[c.Name] = limit
		}
	}
	return mark, restarting
}
