// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestWhichPodCounts tests which of a Deployment's pods stands for its start, in whatever order the API server lists them.
func TestWhichPodCounts(t *testing.T) {
	at := func(clock string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			when, err := time.Parse(time.RFC3339, "2026-11-23T"+clock+"Z")
			if err != nil {
				t.Fatal(err)
			}
			p.Name, p.CreationTimestamp = "web-abc-"+clock, metav1.NewTime(when)
		}
	}
	ending := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: noon} }
	unowned := func(p *corev1.Pod) { p.OwnerReferences = nil }
	pod := func(status string, change ...func(*corev1.Pod)) corev1.Pod { return startPod(t, status, change...) }
	crash, image, creates := pod(runs(crashing), at("17:00:00")), pod(runs(backOff), at("17:59:00")), pod(runs(creating), at("16:00:00"))
	const crashed = "container web has ended 3 times, the last time with exit code 1"
	for name, tc := range map[string]struct {
		pods           []corev1.Pod
		stage, failing string
		ready, none    bool
	}{
		"a rollout that may mend it":     {pods: []corev1.Pod{crash, creates}, stage: api.StagePulling},
		"the newest of those that fail":  {[]corev1.Pod{crash, image}, api.StagePulling, pullsNothing, false, false},
		"the newest comes with its twin": {[]corev1.Pod{image, image, crash}, api.StagePulling, pullsNothing, false, false},
		"one that starts beside two that fail": {
			pods: []corev1.Pod{image, pod(`{}`, at("15:00:00")), crash}, stage: api.StageScheduling,
		},
		"one that fails, and one that ends": {[]corev1.Pod{crash, pod(runs(backOff), ending)}, api.StageStarting, crashed, false, false},
		"one without room beside a Job's": {
			[]corev1.Pod{pod(nowhere), pod(runs(crashing), unowned, ending)}, api.StageScheduling, noRoom, false, false,
		},
		"one that has succeeded":        {pods: []corev1.Pod{pod(`{phase: Succeeded}`)}, none: true},
		"a failed one that still ends":  {pods: []corev1.Pod{pod(`{phase: Failed}`, ending)}, none: true},
		"a ready one that ends":         {pods: []corev1.Pod{pod(`conditions: [{type: Ready, status: "True"}]`, ending)}},
		"a ready one that is another's": {pods: []corev1.Pod{pod(`conditions: [{type: Ready, status: "True"}]`, unowned)}, none: true},
		"one of which nobody knows": {
			pods: []corev1.Pod{pod(`conditions: [{type: Ready, status: Unknown}]`)}, stage: api.StageScheduling,
		},
		"the ready one comes last": {pods: []corev1.Pod{crash, image, pod(`conditions: [{type: Ready, status: "True"}]`)}, ready: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, order := range []string{"listed", "reversed"} {
				got := webStart(tc.pods...)
				if got.Stage != tc.stage || got.Failing != tc.failing || got.Ready != tc.ready || got.None != tc.none {
					t.Errorf("%s: got %+v", order, got)
				}
				for i, j := 0, len(tc.pods)-1; i < j; i, j = i+1, j-1 {
					tc.pods[i], tc.pods[j] = tc.pods[j], tc.pods[i]
				}
			}
		})
	}
}

const (
	pullsNothing = "its image example.com/web:2 cannot be pulled: there is no such image"
	noRoom       = "no node can take its pod: 0/1 nodes are available: 1 Insufficient cpu"
)

// TestNoNodeYet tests when a pod without a node counts as stuck, and when a node or its volume is only on its way.
func TestNoNodeYet(t *testing.T) {
	since := func(at string) string { return strings.Replace(nowhere, "17:59:40", at, 1) }
	instead := func(old, text string) string { return strings.Replace(nowhere, old, text, 1) }
	for name, tc := range map[string]struct {
		status, want string
	}{
		"for twenty seconds":    {since("17:59:45"), noRoom},
		"for a second less":     {since("17:59:46"), ""},
		"the scheduler is away": {`conditions: [{type: Initialized, status: "True"}]`, ""},
		"it has just been bound": {
			instead(`status: "False"`, `status: "True"`), "",
		},
		"nobody knows": {instead(`status: "False"`, `status: Unknown`), ""},
		"the scheduler cannot tell": {
			instead("reason: Unschedulable", "reason: SchedulerError"), "",
		},
		"other pods make room": {nowhere + "\nnominatedNodeName: node7", ""},
		"the cloud makes a node ready": {
			instead("1 Insufficient cpu", "1 node(s) had untolerated taint {node.cloudprovider.kubernetes.io/uninitialized: true}"), "",
		},
		"its volume is being made": {
			instead("1 Insufficient cpu", "pod has unbound immediate PersistentVolumeClaims"), "",
		},
		"it asks for a node that there is not": {
			instead("1 Insufficient cpu", "1 node(s) did not match Pod node affinity/selector"),
			"no node can take its pod: 0/1 nodes are available: 1 node(s) did not match Pod node affinity/selector",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := webStart(startPod(t, tc.status))
			advice := ""
			if tc.want != "" {
				advice = "Make room, add a node, or lower what the pod requests"
			}
			if got.Failing != tc.want || got.Advice != advice || got.Stage != api.StageScheduling || got.Pod == nil || got.Doubt != 0 {
				t.Errorf("got %+v", got)
			}
			if (got.Reason == ReasonUnschedulable) != (tc.want != "") {
				t.Errorf("reason %q", got.Reason)
			}
		})
	}
}

// TestWhosePodsCount tests that only a workload's own pods count, although others may have the same labels.
func TestWhosePodsCount(t *testing.T) {
	workloadOf := func(apiVersion, kind string) Workload {
		return Workload{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "1"}, APIVersion: apiVersion, Kind: kind}
	}
	deployment, set := workloadOf(appsVersion, "Deployment"), workloadOf(appsVersion, "StatefulSet")
	gallery, rollout := workloadOf("example.com/v1", "Gallery"), workloadOf("argoproj.io/v1alpha1", "Deployment")
	owner := func(kind, name string) *metav1.OwnerReference {
		return &metav1.OwnerReference{Kind: kind, Name: name, UID: "1", Controller: new(true)}
	}
	notController := owner("StatefulSet", "web")
	notController.Controller = nil
	for name, tc := range map[string]struct {
		w     Workload
		owner *metav1.OwnerReference
		want  bool
	}{
		"a Deployment's":                            {deployment, owner("ReplicaSet", "web-abc"), true},
		"of another Deployment's ReplicaSet":        {deployment, owner("ReplicaSet", "web-canary-abc"), false},
		"of something with the ReplicaSet's name":   {deployment, owner("Job", "web-abc"), false},
		"a Deployment's, orphaned":                  {deployment, nil, false},
		"a StatefulSet's":                           {set, owner("StatefulSet", "web"), true},
		"a StatefulSet's, orphaned":                 {set, nil, false},
		"of a StatefulSet that does not control it": {set, notController, false},
		"a custom resource's, orphaned":             {gallery, nil, true},
		"a custom resource's own kind":              {gallery, owner("PodSet", "web-7"), true},
		"a Job beside a custom resource":            {gallery, owner("Job", "web-7"), false},
		"a custom kind called Deployment":           {rollout, owner("PodSet", "web-7"), true},
	} {
		t.Run(name, func(t *testing.T) {
			pod := startPod(t, runs(crashing), func(p *corev1.Pod) {
				if p.OwnerReferences = nil; tc.owner != nil {
					p.OwnerReferences = []metav1.OwnerReference{*tc.owner}
				}
			})
			if got := NewStart(tc.w, []corev1.Pod{pod}, noon); (got.Failing != "") != tc.want || got.None == tc.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestLineFitsOnAPage tests that what a container runtime or a webhook says becomes one printable line of bounded length.
func TestLineFitsOnAPage(t *testing.T) {
	full := strings.Repeat("ü", longestFailing)
	for name, tc := range map[string]struct{ text, want string }{
		"as it is":                              {"no space left on device", "no space left on device"},
		"a full stop":                           {"no owner.", "no owner"},
		"a colon that nothing follows":          {"permission denied: ", "permission denied"},
		"several lines":                         {"exit status 1\n\n\tmore:\tmuch\r\n", "exit status 1 more: much"},
		"what cannot be printed":                {"a\x00b\x1b[31mc", "a b [31mc"},
		"nothing":                               {" \n", ""},
		"as long as may be":                     {full, full},
		"one character too long":                {full + "ü", full[:len(full)-len("ü")] + "…"},
		"too long before its spaces are joined": {"x" + strings.Repeat(" ", longestFailing) + "y", "x y"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := line(tc.text); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestRefusedSaysWhatToDo tests what is left of the ReplicaSet controller's message, and what operators are told.
func TestRefusedSaysWhatToDo(t *testing.T) {
	for name, tc := range map[string]struct{ message, want string }{
		"a quota": {
			`pods "web-abc-1" is forbidden: exceeded quota: team, requested: limits.memory=1Gi, used: limits.memory=4Gi, limited: limits.memory=4Gi`,
			"exceeded quota: team, requested: limits.memory=1Gi, used: limits.memory=4Gi, limited: limits.memory=4Gi",
		},
		"pod security": {
			`Error creating: pods "web-abc-1" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true`,
			`violates PodSecurity "restricted:latest": runAsNonRoot != true`,
		},
		"a StatefulSet's": {
			`create Pod db-0 in StatefulSet db failed error: Pod "db-0" is invalid: spec.containers[0].image: Required value`,
			`Pod "db-0" is invalid: spec.containers[0].image: Required value`,
		},
		"something else": {`Internal error occurred: failed calling webhook`, `Internal error occurred: failed calling webhook`},
	} {
		t.Run(name, func(t *testing.T) {
			got := Refused(tc.message)
			if got.Failing != "Kubernetes refuses its pod: "+tc.want || got.Reason != "FailedCreate" || got.Doubt != doubt ||
				got.Advice != "Raise the quota, or change the pod template so that it is admitted" || got.Pod != nil || got.None {
				t.Errorf("got %+v", got)
			}
		})
	}
}
