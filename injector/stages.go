// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Stages are when a pod passed the stages of its start. Kubernetes tells the moments in whole seconds. Each is zero if it is unknown.
type Stages struct {
	// Scheduled is when the pod got its node, and Running when the last of its containers began to run.
	Scheduled, Running time.Time
	// Pulled is how long its images took to pull; 0 if the node had them.
	Pulled time.Duration
}

func newStages(pod *corev1.Pod) Stages {
	var s Stages
	if c := condition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionTrue {
		s.Scheduled = c.LastTransitionTime.Time
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running == nil {
			s.Running = time.Time{}
			break
		}
		if at := c.State.Running.StartedAt.Time; at.After(s.Running) {
			s.Running = at
		}
	}
	return s
}

// instant is how long after it was scheduled a pod runs at most whose images were there, or as good as.
const instant = 2 * time.Second

// MayHavePulled says that it may have taken a while to pull images. Only then it is worth asking for the events that say how long: the API
// server keeps no index of them, and reads all events of the namespace for each answer.
func (s Stages) MayHavePulled() bool {
	return s.Scheduled.IsZero() || s.Running.IsZero() || s.Running.Sub(s.Scheduled) >= instant
}

// pulled finds the time that a pull took, in the kubelet's event about it (reason Pulled). It does so for Kubernetes 1.37's message:
// Successfully pulled image "app:1" in 2.1s (2.1s including waiting). An image that the node has leads to another message.
var pulled = regexp.MustCompile(`^Successfully pulled .* in (\S+) \((\S+) including waiting\)`)

// PullTime returns how long a pull took according to the kubelet's event, waiting for other pulls included; 0 if it does not say so.
func PullTime(message string) time.Duration {
	m := pulled.FindStringSubmatch(message)
	if m == nil {
		return 0
	}
	d, err := time.ParseDuration(m[2])
	if err != nil {
		return 0
	}
	return d
}

// Note lists the stages of a start that began at woken, and how it ended. early is when the pod took requests since its own probes had
// succeeded; zero if it did not. ready is set if Kubernetes calls a pod ready. Note is empty if nothing is known.
func (s Stages) Note(woken, early time.Time, ready bool) string {
	var parts []string
	after := func(what string, at time.Time, precision time.Duration) {
		if !at.IsZero() {
			parts = append(parts, fmt.Sprintf("%s after %s", what, max(0, at.Sub(woken)).Round(precision)))
		}
	}
	after("scheduled", s.Scheduled, time.Second)
	if s.Pulled > 0 {
		parts = append(parts, "images pulled in "+Rounded(s.Pulled))
	}
	after("containers started", s.Running, time.Second)
	switch {
	case !early.IsZero():
		after("took requests", early, 100*time.Millisecond)
		parts[len(parts)-1] += ", when its own probes succeeded"
	case len(parts) > 0 && ready:
		parts = append(parts, "took requests when Kubernetes called it ready")
	}
	return strings.Join(parts, ", ")
}
