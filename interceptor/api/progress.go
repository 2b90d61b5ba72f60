// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// ProgressAnnotation on a route slice holds a Progress as JSON.
const ProgressAnnotation = "scale-to-zero/progress"

// Stages of a start, in their order. Before the first one nothing is known of a pod.
const (
	StageScheduling = "scheduling" // the pod has no node yet
	StagePulling    = "pulling"    // its images are being pulled
	StageStarting   = "starting"   // its containers are being started
	StageNotReady   = "not-ready"  // they run, and it is not ready
)

// FailingFor is how long a Progress that says Failing holds without being written anew, so that what a controller left that
// is gone does not fail requests for good. The injector writes it anew three times as often.
const FailingFor = 30 * time.Second

// Progress is how far the start of a workload has come, as the injector sees it, for those who wait. Without one, or with one
// that does not decode, they wait all the same.
type Progress struct {
	// Stage is one of the Stage constants; empty if nothing is known, or the workload is up or asleep.
	Stage string `json:"stage,omitempty"`
	// Failing is why the workload cannot start as things are: one line, for visitors to read. It is empty while it may start.
	Failing string `json:"failing,omitempty"`
	// Reason is Failing in one word of Kubernetes, such as ImagePullBackOff.
	Reason string `json:"reason,omitempty"`
	// Seen is when the injector looked last; it is renewed only while the start fails.
	Seen time.Time `json:"seen,omitzero"`
	// Paused is set while the owner of the workload has paused its scaling, so that no request may wake it.
	Paused *Pause `json:"paused,omitempty"`
	// Starts is how long the last starts took from the wake until a pod was ready, the newest first.
	Starts []Duration `json:"starts,omitempty"`
}

// Pause is why no request may wake a workload. Unlike a failed start it holds until the injector takes it back: what the
// owner has paused stays so while no controller runs.
type Pause struct {
	// Why is one line, for visitors to read.
	Why string `json:"why"`
	// Asleep says that the workload has no replicas, so that requests are refused. Otherwise they wait for its pods.
	Asleep bool `json:"asleep,omitempty"`
}

// ReasonPaused stands for a Pause where a Reason of Kubernetes stands otherwise.
const ReasonPaused = "Paused"

// Encode returns p as the value of ProgressAnnotation.
func (p Progress) Encode() (string, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("encoding progress: %w", err)
	}
	return string(b), nil
}

// DecodeProgress parses the value of ProgressAnnotation. Nothing is the zero Progress.
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
	return p, nil
}
