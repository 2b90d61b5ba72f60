// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// ProgressAnnotation on a route slice holds a Progress as JSON.
const ProgressAnnotation = "scale-to-zero/progress"

// Stages of a start, in their order. Before the first stage, nothing is known about a pod.
const (
	StageScheduling = "scheduling" // the pod has no node yet
	StagePulling    = "pulling"    // its images are being pulled
	StageStarting   = "starting"   // its containers are being started
	StageNotReady   = "not-ready"  // its containers run, but it is not ready
)

// MaxReplicas is the largest replica count that an interceptor sets.
const MaxReplicas = 1000

// MaxFailing is how long a Progress.Failing is at most, in characters.
const MaxFailing = 300

const (
	maxReason = 100
	maxWhy    = 1000
	// maxStarts is more than the injector keeps. maxStart is longer than a start that anybody waits for.
	maxStarts = 100
	maxStart  = 365 * 24 * time.Hour
)

// FailingFor is how long a Progress with Failing holds unless it is written again. So a controller that has gone does not make
// requests fail for ever. The injector writes it again three times as often.
const FailingFor = 30 * time.Second

// Progress is how far the start of a workload has come according to the injector, for those who wait. They also wait without a
// Progress, and with one that does not decode.
type Progress struct {
	// Stage is one of the Stage constants. It is empty if nothing is known, or if the workload is awake or asleep.
	Stage string `json:"stage,omitempty"`
	// Failing says why the workload cannot start at present: one line, for its owner to read. It is empty while the workload may start.
	Failing string `json:"failing,omitempty"`
	// Reason is Kubernetes' one-word reason for Failing, such as ImagePullBackOff.
	Reason string `json:"reason,omitempty"`
	// Seen is when the injector last looked. It is renewed only while the start fails.
	Seen time.Time `json:"seen,omitzero"`
	// Paused is set while the workload's owner has paused its scaling, so that no request may wake it.
	Paused *Pause `json:"paused,omitempty"`
	// WakeTo is how many replicas an interceptor wakes the workload with; 0 stands for 1.
	WakeTo int32 `json:"wakeTo,omitempty"`
	// Running is how long after the wake the containers of the present start ran; 0 if they do not run yet, or nobody saw the wake.
	Running Duration `json:"running,omitempty"`
	// Starts is how long the latest starts took, from the wake until a pod took requests, newest first. Apps is how much of that the app
	// itself took, from when its containers ran.
	Starts []Duration `json:"starts,omitempty"`
	Apps   []Duration `json:"apps,omitempty"`
}

// Pause says why no request may wake a workload. Unlike a failed start, it holds until the injector removes it: the owner's pause
// stays in force while no controller runs.
type Pause struct {
	// Why is one line, for the workload's owner to read.
	Why string `json:"why"`
	// Kept is set if the workload must have no replicas, so it is not in use, whoever asks for it.
	Kept bool `json:"kept,omitempty"`
	// Asleep is set if the workload has no replicas, so that requests are refused. Otherwise they wait for its pods.
	Asleep bool `json:"asleep,omitempty"`
}

// FailureKind returns what a visitor learns of a failure with this Progress.Reason: its kind, in one line. Progress.Failing names
// images, Secrets, quotas and policies, which are for the app's owner.
func FailureKind(reason string) string {
	switch reason {
	case "ImagePullBackOff":
		return "its image cannot be pulled"
	case "InvalidImageName":
		return "the name of its image is not valid"
	case "ErrImageNeverPull":
		return "its image is not on the node"
	case "SignatureValidationFailed":
		return "its image has no valid signature"
	case "CrashLoopBackOff":
		return "it ends again and again soon after its start"
	case "CreateContainerConfigError":
		return "its configuration is not complete"
	case "CreateContainerError", "PreCreateHookError", "PreStartHookError":
		return "its container cannot be created"
	case "RunContainerError", "PostStartHookError":
		return "its container cannot be run"
	case "Unschedulable":
		return "no node can take it"
	case "FailedCreate":
		return "Kubernetes does not let it start"
	case ReasonPaused:
		return "its owner has paused it"
	case ReasonUnreachable:
		return "its pods cannot be reached"
	default:
		return "it has failed"
	}
}

// ReasonUnreachable is used in place of a Kubernetes reason for ready pods that cannot be connected to.
const ReasonUnreachable = "Unreachable"

// ReasonPaused is used for a Pause in place of a Kubernetes reason.
const ReasonPaused = "Paused"

// Encode returns p as the value of ProgressAnnotation.
func (p Progress) Encode() (string, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encoding progress: %w", err)
	}
	return string(b), nil
}

// DecodeProgress parses the value of ProgressAnnotation. An empty value is the zero Progress.
func DecodeProgress(value string) (Progress, error) {
	var p Progress
	if value == "" {
		return p, nil
	}
	if err := json.Unmarshal([]byte(value), &p); err != nil {
		return Progress{}, fmt.Errorf("decoding progress: %w", err)
	}
	switch p.Stage {
	case "", StageScheduling, StagePulling, StageStarting, StageNotReady:
	default:
		return Progress{}, fmt.Errorf("decoding progress: stage is %q, want scheduling, pulling, starting or not-ready", p.Stage)
	}
	if p.WakeTo < 0 || p.WakeTo > MaxReplicas {
		return Progress{}, fmt.Errorf("decoding progress: wakeTo is %d, want a number from 0 to %d", p.WakeTo, MaxReplicas)
	}
	if err := p.check(); err != nil {
		return Progress{}, err
	}
	return p, nil
}

// check says what is wrong with the texts, which visitors read, and with the durations.
func (p *Progress) check() error {
	switch {
	case !isLine(p.Failing, MaxFailing) || !isLine(p.Reason, maxReason):
		return fmt.Errorf("decoding progress: failing is %q with reason %q, want a line of at most %d and a word of at most %d characters",
			p.Failing, p.Reason, MaxFailing, maxReason)
	case p.Paused != nil && !isLine(p.Paused.Why, maxWhy):
		return fmt.Errorf("decoding progress: paused is %q, want one line of at most %d characters", p.Paused.Why, maxWhy)
	case len(p.Starts) > maxStarts || len(p.Apps) > maxStarts:
		return fmt.Errorf("decoding progress: %d starts and %d of apps, want at most %d", len(p.Starts), len(p.Apps), maxStarts)
	}
	for _, d := range slices.Concat(p.Starts, p.Apps, []Duration{p.Running}) {
		if d < 0 || time.Duration(d) > maxStart {
			return fmt.Errorf("decoding progress: a start took %s, want 0 to %s", d, maxStart)
		}
	}
	return nil
}
