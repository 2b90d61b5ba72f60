// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	// unschedulableAfter is how long a pod has to be unschedulable before its start is certain to fail. A cluster autoscaler looks every
	// 10 s, and reports by an event that a node is coming.
	unschedulableAfter = 20 * time.Second
	// doubt is how long a failure that may pass by itself has to last. For example, a Secret may be created a moment later, or other
	// pods may free a quota.
	doubt = 10 * time.Second
	// pullDoubt is doubt for image pulls: the kubelet tries a second time after 10 s.
	pullDoubt = 15 * time.Second
	// made is the longest time between a pod's sandbox and its container if no image is pulled. Kubernetes does not report a pull, and
	// its times are whole seconds.
	made = 2 * time.Second
	// restarts is how often a container has to restart before its start is certain to fail. Many apps exit once or twice because their
	// database is not available yet.
	restarts = 2
	// comeback is how long a pod that has been ready before has to be down before its start is certain to fail: it is known to be able
	// to start.
	comeback = time.Minute
	// longestFailing is the maximum length of Failing, in characters.
	longestFailing = api.MaxFailing
)

// ReasonUnschedulable is the Reason of a Start for which no node has room.
const ReasonUnschedulable = corev1.PodReasonUnschedulable

// Start is what a workload's pods show about its start.
type Start struct {
	// Ready is set if one of the pods is ready.
	Ready bool
	// Stage is the stage of the furthest pod: one of api's Stage constants.
	Stage string
	// Failing tells visitors, in one line, why no pod can start. It is empty as long as one may start.
	Failing string
	// Reason is Kubernetes' word for Failing. Advice is what the app's operators can do about it.
	Reason, Advice string
	// Doubt is how long the failure has to last before it is certain.
	Doubt time.Duration
	// Pod is the pod that is ready, or that Failing is about; nil if no pod could be created, or none has been created yet.
	Pod *corev1.Pod
	// Stages are those of the furthest pod.
	Stages Stages
	// None is set if there is no pod at all, not even a terminating one.
	None bool
}

// NewStart judges a workload's start by those pods that belong to the workload.
func NewStart(w Workload, pods []corev1.Pod, now time.Time) Start {
	var all []Start
	ending := false
	for i := range pods {
		pod := &pods[i]
		switch {
		case !w.owns(pod) || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded:
		case !pod.DeletionTimestamp.IsZero():
			ending = true
		case podReady(pod):
			return Start{Ready: true, Pod: pod, Stages: newStages(pod)}
		default:
			all = append(all, newPodStart(pod, now))
		}
	}
	if len(all) == 0 {
		return Start{None: !ending}
	}
	s := slices.MaxFunc(all, compareStarts)
	if ending && s.Reason == ReasonUnschedulable {
		return Start{Stage: s.Stage} // the terminating pod makes room
	}
	return s
}

// Refused returns the Start of a workload for which Kubernetes could not create a pod.
func Refused(message string) Start {
	for _, before := range []string{"Error creating: ", " failed error: ", " is forbidden: "} {
		if _, after, found := strings.Cut(message, before); found {
			message = after
		}
	}
	return Start{
		Failing: line("Kubernetes refuses its pod: " + message), Reason: "FailedCreate", Doubt: doubt,
		Advice: "Raise the quota, or change the pod template so that it is admitted",
	}
}

// compareStarts sorts the decisive pod last: the furthest of the pods that may still start or, if there is none, the newest of those
// that fail.
func compareStarts(a, b Start) int {
	switch {
	case a.Failing == "" && b.Failing == "":
		stages := []string{api.StageScheduling, api.StagePulling, api.StageStarting, api.StageNotReady}
		return cmp.Compare(slices.Index(stages, a.Stage), slices.Index(stages, b.Stage))
	case a.Failing == "":
		return 1
	case b.Failing == "":
		return -1
	default:
		return a.Pod.CreationTimestamp.Compare(b.Pod.CreationTimestamp.Time)
	}
}

// owns reports whether a pod that matches the workload's selector belongs to the workload: a Job's pod may have the same labels.
func (w Workload) owns(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	switch {
	case w.APIVersion == appsVersion && w.Kind == "Deployment":
		hash := pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		return owner != nil && owner.Kind == "ReplicaSet" && owner.Name == w.Name+"-"+hash
	case w.APIVersion == appsVersion:
		return owner != nil && owner.UID == w.UID
	default: // a custom resource may own its pods through any other kind
		return owner == nil || owner.Kind != "Job" && owner.Kind != "DaemonSet"
	}
}

func podReady(pod *corev1.Pod) bool {
	c := condition(pod, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == kind {
			return c
		}
	}
	return nil
}

// newPodStart judges one pod that is not ready.
func newPodStart(pod *corev1.Pod, now time.Time) Start {
	if pod.Spec.NodeName == "" {
		return unscheduled(pod, now)
	}
	s := Start{Stage: stage(pod, now), Pod: pod, Stages: newStages(pod)}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if one := containerFailure(pod, c, now); one.Failing != "" {
			one.Stage, one.Pod = s.Stage, pod
			return one
		}
	}
	return s
}

// unscheduled judges a pod without a node. The pod is not stuck if it will preempt other pods, or if its volumes or nodes are still
// being created.
func unscheduled(pod *corev1.Pod, now time.Time) Start {
	s := Start{Stage: api.StageScheduling, Pod: pod}
	c := condition(pod, corev1.PodScheduled)
	if c == nil || c.Status != corev1.ConditionFalse || c.Reason != corev1.PodReasonUnschedulable ||
		pod.Status.NominatedNodeName != "" || now.Sub(c.LastTransitionTime.Time) < unschedulableAfter {
		return s
	}
	for _, passing := range []string{"unbound immediate PersistentVolumeClaims", "not-ready", "uninitialized"} {
		if strings.Contains(c.Message, passing) {
			return s
		}
	}
	why, _, _ := strings.Cut(c.Message, ". ") // the rest says that preemption would not help
	s.Failing, s.Reason = line("no node can take its pod: "+why), ReasonUnschedulable
	s.Advice = "Make room, add a node, or lower what the pod requests"
	return s
}

// stage returns how far a pod with a node has come. Steps before its containers, such as volumes and the network, count as starting.
func stage(pod *corev1.Pod, now time.Time) string {
	sandbox := condition(pod, corev1.PodReadyToStartContainers)
	pulls := sandbox != nil && sandbox.Status == corev1.ConditionTrue && now.Sub(sandbox.LastTransitionTime.Time) >= made
	done := len(pod.Status.ContainerStatuses) > 0
	for _, c := range pod.Status.InitContainerStatuses {
		ended, one := c.State.Terminated, containerStage(c, pulls)
		switch {
		case ended != nil && ended.ExitCode == 0 || sidecar(pod, c.Name) && one == api.StageNotReady:
		case one == api.StagePulling:
			return one
		default:
			return api.StageStarting
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		one := containerStage(c, pulls)
		if one == api.StagePulling {
			return one
		}
		done = done && one == api.StageNotReady
	}
	if done {
		return api.StageNotReady
	}
	return api.StageStarting
}

// sidecar reports whether an init container keeps running.
func sidecar(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	})
}

// containerStage returns the stage of the container that has to start next.
func containerStage(c corev1.ContainerStatus, pulls bool) string {
	if c.State.Running != nil && c.Started != nil && *c.Started {
		return api.StageNotReady
	}
	if c.State.Waiting == nil {
		return api.StageStarting
	}
	switch c.State.Waiting.Reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull":
		return api.StagePulling
	case "ContainerCreating", "PodInitializing":
		if pulls {
			return api.StagePulling
		}
	}
	return api.StageStarting
}

// containerFailure says why a container cannot start. It is zero if the container may start.
func containerFailure(pod *corev1.Pod, c corev1.ContainerStatus, now time.Time) Start {
	if c.State.Waiting == nil {
		return Start{}
	}
	s := Start{Reason: c.State.Waiting.Reason, Doubt: doubt}
	message := c.State.Waiting.Message
	describe := fmt.Sprintf("See kubectl describe pod -n %s %s", pod.Namespace, pod.Name)
	switch s.Reason {
	case "ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable":
		return pullFailure(pod, c)
	case "InvalidImageName":
		s.Failing, s.Doubt, s.Advice = fmt.Sprintf("%q is not a valid image name", image(pod, c)), 0, "Fix the image name"
	case "ErrImageNeverPull":
		s.Failing, s.Doubt = fmt.Sprintf("its image %s is not on the node, and imagePullPolicy forbids pulling it", image(pod, c)), 0
		s.Advice = "Put the image on the node, or change imagePullPolicy"
	case "SignatureValidationFailed":
		s.Failing, s.Advice = fmt.Sprintf("its image %s has no valid signature", image(pod, c)), describe
	case "CrashLoopBackOff":
		return crash(pod, c, now)
	case "CreateContainerConfigError", "CreateContainerError", "PreCreateHookError", "PreStartHookError":
		s.Failing, s.Advice = fmt.Sprintf("container %s cannot be created: %s", c.Name, message), describe
	case "RunContainerError", "PostStartHookError":
		s.Failing, s.Advice = fmt.Sprintf("container %s cannot be run: %s", c.Name, message), describe
	default:
		return Start{}
	}
	s.Failing = line(s.Failing)
	return s
}

// pullFailure says why an image cannot be pulled. Kubernetes has two reasons, which count as one because the kubelet alternates
// between them. The failure is certain at once if the registry says that there is no such image, and otherwise after a second try.
func pullFailure(pod *corev1.Pod, c corev1.ContainerStatus) Start {
	message := c.State.Waiting.Message
	said := func(words ...string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(strings.ToLower(message), word) })
	}
	s := Start{Reason: "ImagePullBackOff", Doubt: pullDoubt, Advice: "Check the image's name, and imagePullSecrets if the image is private"}
	why := ""
	final := false
	switch {
	case said("dial tcp", "i/o timeout", "tls handshake", "no such host"):
		why, s.Advice = "its registry cannot be reached", fmt.Sprintf("Check the image's name, and whether node %s reaches its registry",
			pod.Spec.NodeName)
	case said("denied", "unauthorized", "forbidden", "authorization failed"):
		why, final = "its registry refuses it, or does not have it", true
	case said("not found", "notfound", "manifest unknown"):
		why, final = "there is no such image", true
	case strings.Contains(message, ": "):
		why = message[strings.LastIndex(message, ": ")+2:]
	}
	if final && c.State.Waiting.Reason == "ImagePullBackOff" {
		s.Doubt = 0
	}
	s.Failing = fmt.Sprintf("its image %s cannot be pulled", image(pod, c))
	if why != "" {
		s.Failing += ": " + why
	}
	s.Failing = line(s.Failing)
	return s
}

// crash describes how a container ended that ends again and again.
func crash(pod *corev1.Pod, c corev1.ContainerStatus, now time.Time) Start {
	last := c.LastTerminationState.Terminated
	if c.RestartCount < restarts || last == nil || hasBeenReady(pod) && now.Sub(condition(pod,
		corev1.PodReady).LastTransitionTime.Time) < comeback {
		return Start{}
	}
	s := Start{Reason: "CrashLoopBackOff"}
	s.Advice = fmt.Sprintf("See kubectl logs -n %s %s -c %s --previous", pod.Namespace, pod.Name, c.Name)
	switch ended := fmt.Sprintf("container %s has ended %d times, the last time ", c.Name, c.RestartCount+1); last.Reason {
	case "OOMKilled":
		s.Failing, s.Advice = ended+"because it ran out of memory (OOMKilled)", "Raise the memory limit of the container"
	case "StartError", "ContainerCannotRun":
		s.Failing = fmt.Sprintf("container %s cannot be run: %s", c.Name, last.Message)
		s.Advice = fmt.Sprintf("See kubectl describe pod -n %s %s", pod.Namespace, pod.Name)
	default:
		s.Failing = fmt.Sprintf("%swith exit code %d", ended, last.ExitCode)
	}
	s.Failing = line(s.Failing)
	return s
}

// hasBeenReady reports whether a pod that is not ready was ready before: its condition has changed since the kubelet accepted it. On
// a busy node, the kubelet may need some seconds to write the condition for the first time.
func hasBeenReady(pod *corev1.Pod) bool {
	c, began := condition(pod, corev1.PodReady), pod.Status.StartTime
	return c != nil && began != nil && c.LastTransitionTime.Sub(began.Time) > 10*time.Second
}

// image returns a container's image as the pod's spec names it. The status has the node's name for the image.
func image(pod *corev1.Pod, c corev1.ContainerStatus) string {
	for _, spec := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if spec.Name == c.Name {
			return spec.Image
		}
	}
	return c.Image
}

// line turns text into one printable line that fits on a page, without a full stop.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.TrimRight(strings.Join(strings.Fields(s), " "), ".: ")
	if runes := []rune(s); len(runes) > longestFailing {
		s = string(runes[:longestFailing-1]) + "…"
	}
	return s
}
