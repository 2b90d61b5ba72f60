// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// firstPodLook is the pause between two looks for the first pod of a start. Between a pod's creation and the start of its first
	// container lie the scheduler, the pod's sandbox and its network, which take longer than this.
	firstPodLook = 200 * time.Millisecond
	// mostCPU bounds the annotation startup-cpu. It catches 2000 where 2000m was meant.
	mostCPU = 1000
)

// The reasons why a start gets no more CPU. Each is reported once.
const (
	cpuDisabled = "disabled"     // by the chart
	cpuQOS      = "QoS"          // by the pod's QoS class
	cpuNothing  = "nothing"      // no limit is lower
	cpuRestarts = "restarts"     // by a container's resizePolicy
	cpuServer   = "API server"   // by a quota, a policy, a missing right, or its version
	cpuNode     = "node"         // by the kubelet
	cpuStays    = "not put back" // by the API server, at the end
)

// StartupCPU is what is known about the CPU limits of a workload's present start. It is a value, as Life is.
type StartupCPU struct {
	// Starting is set from the wake until a pod is ready, and Since is when the wake was seen.
	Starting bool
	Since    time.Time
	// Settled is set once the limits of the start's first pod have been raised, or cannot be.
	Settled bool
	// Marked is set if a pod of the workload may carry the mark. Only then are marked pods looked for.
	Marked bool
	// PutBack is when limits may be put back again that could not be; zero if they could.
	PutBack time.Time
	// Refused are the reported reasons why a start gets no more CPU.
	Refused []string
}

// parseStartupCPU reads the value of the annotation startup-cpu.
func parseStartupCPU(value string) (resource.Quantity, bool) {
	q, err := resource.ParseQuantity(value)
	ok := err == nil && q.Cmp(resource.MustParse("1m")) >= 0 && q.Cmp(*resource.NewQuantity(mostCPU, resource.DecimalSI)) <= 0
	q.RoundUp(resource.Milli) // as the API server does with limits
	return q, ok
}

// readStartupCPU is a setting.
func readStartupCPU(s *Settings, value string) (allowed string, ok bool) {
	s.StartupCPU = value
	_, ok = parseStartupCPU(value)
	return fmt.Sprintf("a quantity of CPU such as 2 or 1500m, from 1m to %d", mostCPU), ok
}

// next returns what is known after another observation of the workload. was is its Life before that.
//
// A start begins only when the workload leaves zero replicas, or if nobody knows how it began. So pods of a rollout or a restart keep
// their limits, even if no other pod is ready, unless the controller has just started.
func (c StartupCPU) next(now time.Time, was Life, w Workload) StartupCPU {
	switch {
	case w.Replicas == 0 || w.ReadyReplicas > 0:
		c.Starting, c.Settled = false, false
	case !c.Starting && (was.Asleep || !was.Known):
		c.Starting, c.Settled, c.Since = true, false, now
	}
	return c
}

// pause returns the pause before another look at the pods. It grows with the length of the start.
func (c StartupCPU) pause(now time.Time, shortest time.Duration) time.Duration {
	return min(max(now.Sub(c.Since)/10, shortest), renewal/2)
}

// without returns Refused without some reasons.
func (c StartupCPU) without(reasons ...string) []string {
	return slices.DeleteFunc(slices.Clone(c.Refused), func(r string) bool { return slices.Contains(reasons, r) })
}

// cpuPlanner plans the CPU limits of a workload's pods.
type cpuPlanner struct{ *workloadPlanner }

// plan raises the CPU limits of the start's first pod, if a Service asks for that, and puts them back.
//
// Until the first pod is settled, its pods are listed every firstPodLook, so that its limits are raised before or just as its
// containers start; after that, marked pods are listed at the pace of follow. Nothing is listed for other workloads.
//
//	a marked pod                            plan
//	--------------------------------------  -----------------------------------------------
//	of a start that goes on, limits raised  wait; report what the kubelet says
//	the same, found by another controller   raise those limits that still are as they were
//	is ready, or another pod is             put back what is as we set it; remove the mark
//	no Service asks for it any more         the same
//	has ended                               nothing
func (p cpuPlanner) plan() WorkloadQuestion {
	o, c, want := p.o, &p.Memory.CPU, p.d.startupCPU
	if want.IsZero() {
		c.Refused = slices.DeleteFunc(slices.Clone(c.Refused), func(r string) bool { return r != cpuStays })
	} else if !o.Install.StartupCPU {
		p.startsWithout(o.Workload, p.objects(), cpuDisabled, "the chart's value startupCPU.enabled is false",
			"Set it to true, or remove annotation "+Prefix+"startup-cpu")
	}
	if !o.Install.StartupCPU {
		return NoWorkloadQuestion
	}
	*c = c.next(o.Now, o.Memory.Life, o.Workload)
	if c.Marked {
		if o.Answers.Marked == nil {
			return AskMarkedPods
		}
		p.tendMarked(want)
	}
	if want.IsZero() || !c.Starting || c.Settled || c.Marked {
		return NoWorkloadQuestion
	}
	if o.Answers.Listed == nil {
		return AskPodList
	}
	pod, ready := firstPod(o.Workload, o.Answers.Listed.Pods)
	switch {
	case ready: // its status does not say so, or not yet
		c.Starting = false
	case pod == nil:
		p.after(c.pause(o.Now, firstPodLook))
	default:
		p.raiseFirst(pod, want)
	}
	return NoWorkloadQuestion
}

// firstPod returns the pod that the start is expected to end with, if none is ready. The wake itself creates one pod; if somebody
// scales to several at once, only one is raised, because the first to be ready answers whoever waits, and all of them might take more
// than their nodes have. It is the oldest of those that have a node already.
func firstPod(w Workload, pods []corev1.Pod) (first *corev1.Pod, ready bool) {
	for i := range pods {
		pod := &pods[i]
		switch {
		case !w.owns(pod) || ended(pod):
		case podReady(pod):
			return nil, true
		case first == nil || earlier(pod, first) < 0:
			first = pod
		}
	}
	return first, false
}

func earlier(a, b *corev1.Pod) int {
	waits := func(pod *corev1.Pod) int {
		if pod.Spec.NodeName == "" {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(waits(a), waits(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// tendMarked plans for the pods that have the mark. want is what the Services ask for; zero if none asks.
func (p cpuPlanner) tendMarked(want resource.Quantity) {
	o, c := p.o, &p.Memory.CPU
	left, starts := false, false
	for i := range o.Answers.Marked.Pods {
		pod := &o.Answers.Marked.Pods[i]
		mark, ok := markOf(pod)
		if !ok || ended(pod) {
			continue
		}
		left = true
		switch {
		case podReady(pod):
			c.Starting = false
			fallthrough
		case mark.To.Cmp(want) > 0 || !c.Starting || !o.Workload.owns(pod):
			if wait := c.PutBack.Sub(o.Now); wait > 0 {
				p.after(wait)
			} else {
				p.Resizes = append(p.Resizes, putBack(pod, mark))
			}
		case !c.Settled: // another controller may have died before it resized the pod
			p.raise(PodResize{Pod: pod, Limits: mark.limits(pod, mark.untouched)})
		default:
			starts = true
			p.reportKubelet(pod)
		}
	}
	switch {
	case !left: // all are done, or the start's first pod has gone before it was ready
		c.Marked, c.Settled, c.PutBack = false, false, time.Time{}
	case starts:
		p.after(c.pause(o.Now, minLook))
	}
}

// raiseFirst raises the limits of the start's first pod, if that is possible without a restart and within its QoS class.
func (p cpuPlanner) raiseFirst(pod *corev1.Pod, want resource.Quantity) {
	w := p.o.Workload
	p.Memory.CPU.Settled = true
	if mark, ok := markOf(pod); ok && mark.Workload == w.Ref().String() && mark.To.Cmp(want) <= 0 {
		p.raise(PodResize{Pod: pod, Limits: mark.limits(pod, mark.untouched)})
		return
	}
	if pod.Status.QOSClass == corev1.PodQOSGuaranteed {
		p.startsWithout(w, p.objects(), cpuQOS, "its pod has QoS class Guaranteed, which would change with a CPU limit above the request; "+
			"Kubernetes forbids that", "Let its containers request less CPU than their limits")
		return
	}
	mark, restarting := newMark(w, pod, want)
	if len(restarting) > 0 {
		p.startsWithout(w, p.objects(), cpuRestarts,
			fmt.Sprintf("resizePolicy restarts container %s when its CPU changes", strings.Join(restarting, ", ")),
			"Set restartPolicy NotRequired for cpu there")
	}
	if len(mark.From) == 0 {
		if len(restarting) == 0 {
			p.startsWithout(w, p.objects(), cpuNothing, fmt.Sprintf("none of its containers has a CPU limit below %s", want.String()),
				"Containers without a limit are not limited anyway. Remove annotation "+Prefix+"startup-cpu, or set it higher")
		}
		return
	}
	text, _ := json.Marshal(mark) // it cannot fail: these are strings
	p.raise(PodResize{Pod: pod, Mark: string(text), Limits: mark.limits(pod, mark.untouched)})
}

func (p cpuPlanner) raise(r PodResize) {
	c := &p.Memory.CPU
	c.Settled, c.Marked = true, true
	p.Resizes = append(p.Resizes, r)
	p.after(c.pause(p.o.Now, minLook))
}

// reportKubelet reports that the kubelet does not resize a pod whose limits are raised.
func (p cpuPlanner) reportKubelet(pod *corev1.Pod) {
	describe := fmt.Sprintf("See kubectl describe pod -n %s %s", pod.Namespace, pod.Name)
	for _, kind := range []corev1.PodConditionType{corev1.PodResizePending, corev1.PodResizeInProgress} {
		c := condition(pod, kind)
		if c == nil || c.Status != corev1.ConditionTrue {
			continue
		}
		advice := ""
		switch c.Reason {
		case corev1.PodReasonDeferred:
			advice = "Make room on that node, or ask for less in annotation " + Prefix + "startup-cpu"
		case corev1.PodReasonInfeasible, corev1.PodReasonError:
			advice = describe
		default:
			continue // it is being done
		}
		p.startsWithout(p.o.Workload, p.objects(), cpuNode,
			fmt.Sprintf("the kubelet of node %s does not resize its pod (%s): %s", pod.Spec.NodeName, c.Reason, line(c.Message)), advice)
	}
}

// startsWithout reports that a start gets no more CPU, once for each reason.
func (p *WorkloadPlan) startsWithout(w Workload, objects []Object, reason, why, advice string) {
	p.reportCPU(objects, reason, fmt.Sprintf("%s does not get all the CPU that annotation %sstartup-cpu asks for: %s. %s",
		w.Ref(), Prefix, why, advice))
}

func (p *WorkloadPlan) reportCPU(objects []Object, reason, note string) {
	if slices.Contains(p.Memory.CPU.Refused, reason) {
		return
	}
	p.Memory.CPU.Refused = append(slices.Clone(p.Memory.CPU.Refused), reason)
	p.Story = append(p.Story, Report{Type: corev1.EventTypeWarning, Reason: ReasonStartupCPU, Note: note, Objects: objects, Lasting: true})
}

// Resized takes note of what became of one of Resizes. marked is set if the pod may have the mark now. An error is never fatal: the
// start goes on as it is.
func (p *WorkloadPlan) Resized(o WorkloadObservation, r PodResize, marked bool, err error) {
	c := &p.Memory.CPU
	why, advice, refused := cpuRefusal(err)
	switch {
	case err == nil && r.Unmark:
		c.Refused, c.PutBack = c.without(cpuStays), time.Time{}
		p.after(firstPodLook) // to see that it is done
	case err == nil:
		c.Refused = c.without(cpuServer, cpuQOS, cpuNothing)
	case refused && r.Unmark:
		p.reportCPU(o.Objects(), cpuStays, fmt.Sprintf("The CPU limits of pod %s cannot be put back: %s. %s; scale-to-zero keeps trying",
			r.Pod.Name, why, advice))
		c.PutBack = o.Now.Add(KindRetry)
		p.after(KindRetry)
	case refused:
		c.Marked = marked
		p.startsWithout(o.Workload, o.Objects(), cpuServer, why, advice)
	default:
		c.Settled = c.Settled && r.Unmark
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) { // the pod has changed or gone meanwhile
			p.after(firstPodLook / 10)
		} else {
			p.Soon = true
		}
	}
}

// cpuRefusal says why the API server refuses to resize a pod. It returns false if it does not refuse that.
func cpuRefusal(err error) (why, advice string, refused bool) {
	if noResize(err) {
		return "this Kubernetes cannot resize pods in place", "Upgrade the API server and the nodes to Kubernetes 1.35, or to 1.33 at least", true
	}
	r, refused := RefusalOf(err)
	if _, after, found := strings.Cut(r.Why, " is forbidden: "); found {
		r.Why = after
	}
	if strings.Contains(r.Why, "denied") || strings.Contains(r.Why, "failed calling webhook") {
		r.Advice = "Let that policy allow scale-to-zero's controller to change pods and pods/resize"
	}
	return line(r.Why), r.Advice, refused
}

// ResizeRefused reports whether an error means that the API server refuses to resize a pod, or cannot.
func ResizeRefused(err error) bool {
	_, _, refused := cpuRefusal(err)
	return refused
}

// noResize reports whether an error means that the API server does not know the subresource resize. If the pod is gone, the error
// names it.
func noResize(err error) bool {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	switch status.Status().Code {
	case http.StatusMethodNotAllowed:
		return true
	case http.StatusNotFound:
		return details == nil || details.Name == "" || apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
	default:
		return false
	}
}
