// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// The statuses were written by a kubelet 1.37 with containerd. Fields that this package does not read are omitted.
const (
	sandbox  = `conditions: [{type: PodReadyToStartContainers, status: "True", lastTransitionTime: "2026-11-23T18:00:00Z"}]`
	creating = `{name: web, started: false, state: {waiting: {reason: ContainerCreating}}}`
	backOff  = `{name: web, state: {waiting: {reason: ImagePullBackOff, message: 'Back-off pulling image "example.com/web:2": ` +
		`ErrImagePull: failed to pull and unpack image "example.com/web:2": failed to resolve reference "example.com/web:2": ` +
		`example.com/web:2: not found'}}}`
	pullErr = `{name: web, state: {waiting: {reason: ErrImagePull, message: 'failed to pull and unpack image "example.com/web:2": ` +
		`failed to resolve reference "example.com/web:2": example.com/web:2: not found'}}}`
	offline = `{name: web, state: {waiting: {reason: ImagePullBackOff, message: 'Back-off pulling image "example.com/web:2": ` +
		`ErrImagePull: failed to do request: Head "https://example.com/v2/web/manifests/2": dial tcp: lookup example.com on 10.0.0.1:53: ` +
		`no such host'}}}`
	crashing = `{name: web, restartCount: 2, lastState: {terminated: {exitCode: 1, reason: Error}}, state: {waiting: {reason: ` +
		`CrashLoopBackOff, message: back-off 20s restarting failed container=web}}}`
	nowhere = `conditions: [{type: PodScheduled, status: "False", reason: Unschedulable, lastTransitionTime: "2026-11-23T17:59:40Z", ` +
		`message: "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: ` +
		`1 No preemption victims found for incoming pod."}]`
)

// waits returns the status of a waiting container.
func waits(reason, message string) string {
	return "containerStatuses: [{name: web, state: {waiting: {reason: " + reason + ", message: '" + message + "'}}}]"
}

// runs returns the status of a pod whose one container is in this state.
func runs(container string) string { return sandbox + "\ncontainerStatuses: [" + container + "]" }

// wasReady returns the status of a pod that has not been ready since until.
func wasReady(until string) string {
	return `conditions: [{type: Ready, status: "False", lastTransitionTime: "2026-11-23T` + until + `Z"}]`
}

// began returns the status of a pod that a kubelet accepted at that time.
func began(at string) string { return `startTime: "2026-11-23T` + at + `Z"` + "\n" }

// startPod returns a pod of Deployment web with that status. It has a node if the status mentions containers.
func startPod(t *testing.T, status string, change ...func(*corev1.Pod)) corev1.Pod {
	t.Helper()
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-abc-1", Labels: map[string]string{"app": "web", "pod-template-hash": "abc"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-abc", Controller: new(true)}},
		},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "migrate"}, {Name: "proxy", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}},
			Containers:     []corev1.Container{{Name: "web", Image: "example.com/web:2"}},
		},
	}
	if err := yaml.UnmarshalStrict([]byte(status), &pod.Status); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(status, "ontainerStatuses") {
		pod.Spec.NodeName = "node1"
	}
	for _, c := range change {
		c(&pod)
	}
	return pod
}

func TestNewStart(t *testing.T) {
	at := time.Date(2026, 11, 23, 18, 0, 5, 0, time.UTC)
	ending := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: at} }
	newer := func(p *corev1.Pod) { p.CreationTimestamp = metav1.Time{Time: at} }
	owner := func(kind, name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.OwnerReferences[0].Kind, p.OwnerReferences[0].Name = kind, name }
	}
	pod := func(status string, change ...func(*corev1.Pod)) corev1.Pod { return startPod(t, status, change...) }
	only := func(status string) []corev1.Pod { return []corev1.Pod{pod(status)} }
	ready := pod(`conditions: [{type: Ready, status: "True"}]`)
	noImage := Start{
		Stage: api.StagePulling, Failing: "its image example.com/web:2 cannot be pulled: there is no such image",
		Reason: "ImagePullBackOff",
	}
	for name, tc := range map[string]struct {
		pods []corev1.Pod
		want Start
	}{
		"no pod":               {nil, Start{None: true}},
		"one that is ending":   {[]corev1.Pod{pod(runs(crashing), ending)}, Start{}},
		"one that was evicted": {only(`{phase: Failed, reason: Evicted}`), Start{None: true}},
		"a Job's":              {[]corev1.Pod{pod(runs(crashing), owner("Job", "web-abc"))}, Start{None: true}},
		"another Deployment's": {[]corev1.Pod{pod(runs(crashing), owner("ReplicaSet", "web-canary-abc"))}, Start{None: true}},
		"somebody's own":       {[]corev1.Pod{pod(runs(crashing), func(p *corev1.Pod) { p.OwnerReferences = nil })}, Start{None: true}},
		"one of them is ready": {[]corev1.Pod{pod(runs(backOff)), ready}, Start{Ready: true}},
		"not scheduled yet":    {only(`{}`), Start{Stage: api.StageScheduling}},
		"scheduled a moment ago": {
			only(`containerStatuses: [{name: web, state: {waiting: {reason: ContainerCreating}}}]`), Start{Stage: api.StageStarting},
		},
		"sandbox a moment ago":   {only(strings.Replace(runs(creating), "18:00:00", "18:00:04", 1)), Start{Stage: api.StageStarting}},
		"pulling for long":       {only(strings.Replace(runs(creating), "18:00:00", "12:00:00", 1)), Start{Stage: api.StagePulling}},
		"startup probe":          {only(runs(`{name: web, started: false, state: {running: {}}}`)), Start{Stage: api.StageStarting}},
		"readiness probe":        {only(runs(`{name: web, started: true, state: {running: {}}}`)), Start{Stage: api.StageNotReady}},
		"a sidecar runs already": {only(runs(`{name: proxy, started: true, state: {running: {}}}, ` + creating)), Start{Stage: api.StagePulling}},
		"init container runs": {
			only(runs(`{name: web, state: {waiting: {reason: PodInitializing}}}`) +
				"\ninitContainerStatuses: [{name: migrate, started: true, state: {running: {}}}]"),
			Start{Stage: api.StageStarting},
		},
		"init container is done, sidecar runs": {
			only(runs(`{name: web, state: {waiting: {reason: PodInitializing}}}`) +
				"\ninitContainerStatuses: [{name: migrate, state: {terminated: {exitCode: 0}}}, {name: proxy, started: true, state: {running: {}}}]"),
			Start{Stage: api.StagePulling},
		},
		"init container crashes": {
			only(runs(`{name: web, state: {waiting: {reason: PodInitializing}}}`) + "\ninitContainerStatuses: [" +
				strings.Replace(crashing, "web", "migrate", 1) + "]"),
			Start{
				Stage: api.StageStarting, Failing: "container migrate has ended 3 times, the last time with exit code 1",
				Reason: "CrashLoopBackOff",
			},
		},

		"no such image": {only(runs(backOff)), noImage},
		"no such image, first time": {only(runs(pullErr)), Start{
			Stage: api.StagePulling, Failing: noImage.Failing, Reason: noImage.Reason,
			Doubt: pullDoubt,
		}},
		"registry not reached": {only(runs(offline)), Start{
			Stage: api.StagePulling, Failing: "its image example.com/web:2 cannot be pulled: its registry cannot be " +
				"reached", Reason: "ImagePullBackOff", Doubt: pullDoubt,
		}},
		"registry says something else": {only(runs(strings.Replace(offline, "dial tcp: lookup example.com on 10.0.0.1:53: no such host",
			"500 Internal Server Error.", 1))), Start{
			Stage: api.StagePulling, Failing: "its image example.com/web:2 cannot be pulled: 500 Internal Server " +
				"Error", Reason: "ImagePullBackOff", Doubt: pullDoubt,
		}},
		"image's name": {
			only(waits("InvalidImageName", "x")),
			Start{Stage: api.StagePulling, Failing: `"example.com/web:2" is not a valid image name`, Reason: "InvalidImageName"},
		},
		"never pulled": {only(waits("ErrImageNeverPull", "x")), Start{
			Stage:   api.StagePulling,
			Failing: "its image example.com/web:2 is not on the node, and imagePullPolicy forbids pulling it", Reason: "ErrImageNeverPull",
		}},
		"crashed twice": {
			only(runs(strings.Replace(crashing, "restartCount: 2", "restartCount: 1", 1))),
			Start{Stage: api.StageStarting},
		},
		"crashed thrice": {only(runs(crashing)), Start{
			Stage:   api.StageStarting,
			Failing: "container web has ended 3 times, the last time with exit code 1", Reason: "CrashLoopBackOff",
		}},
		"crashes, has been ready": {
			only(began("12:00:00") + wasReady("17:59:30") + runs(crashing)[len(sandbox):]),
			Start{Stage: api.StageStarting},
		},
		"does not come back": {
			only(began("12:00:00") + wasReady("17:59:00") + runs(crashing)[len(sandbox):]),
			Start{Stage: api.StageStarting, Failing: "container web has ended 3 times, the last time with exit code 1", Reason: "CrashLoopBackOff"},
		},
		"has never been ready": {
			only(began("17:59:30") + wasReady("17:59:30") + runs(crashing)[len(sandbox):]),
			Start{Stage: api.StageStarting, Failing: "container web has ended 3 times, the last time with exit code 1", Reason: "CrashLoopBackOff"},
		},
		"runs once more": {
			only(runs(`{name: web, restartCount: 3, started: false, lastState: {terminated: {exitCode: 1}}, state: {running: {}}}`)),
			Start{Stage: api.StageStarting},
		},
		"out of memory": {only(runs(strings.Replace(crashing, "exitCode: 1, reason: Error", "exitCode: 137, reason: OOMKilled",
			1))), Start{Stage: api.StageStarting, Failing: "container web has ended 3 times, the last time because it ran out of memory " +
			"(OOMKilled)", Reason: "CrashLoopBackOff"}},
		"no such command": {
			only(runs(strings.Replace(crashing, "reason: Error", `reason: StartError, message: "exec: \"/nope\": no such file\n"`, 1))),
			Start{Stage: api.StageStarting, Failing: `container web cannot be run: exec: "/nope": no such file`, Reason: "CrashLoopBackOff"},
		},
		"no such Secret": {
			only(waits("CreateContainerConfigError", `secret "web" not found`)),
			Start{
				Stage: api.StageStarting, Failing: `container web cannot be created: secret "web" not found`, Reason: "CreateContainerConfigError",
				Doubt: doubt,
			},
		},

		"no node": {only(nowhere), Start{
			Stage:   api.StageScheduling,
			Failing: "no node can take its pod: 0/1 nodes are available: 1 Insufficient cpu", Reason: "Unschedulable",
		}},
		"no node yet":        {only(strings.Replace(nowhere, "17:59:40", "17:59:50", 1)), Start{Stage: api.StageScheduling}},
		"node of another":    {only(nowhere + "\nnominatedNodeName: node1"), Start{Stage: api.StageScheduling}},
		"room is being made": {[]corev1.Pod{pod(nowhere), pod(`{}`, ending)}, Start{Stage: api.StageScheduling}},
		"no volume yet": {
			only(strings.Replace(nowhere, "1 Insufficient cpu", "pod has unbound immediate PersistentVolumeClaims", 1)),
			Start{Stage: api.StageScheduling},
		},
		"node is starting": {only(strings.Replace(nowhere, "1 Insufficient cpu",
			"1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }", 1)), Start{Stage: api.StageScheduling}},
		"gated": {
			only(strings.Replace(nowhere, "reason: Unschedulable", "reason: SchedulingGated", 1)),
			Start{Stage: api.StageScheduling},
		},

		"a rollout mends it": {[]corev1.Pod{pod(runs(backOff)), pod(`{}`)}, Start{Stage: api.StageScheduling}},
		"the furthest counts": {
			[]corev1.Pod{pod(`{}`), pod(runs(`{name: web, started: true, state: {running: {}}}`)), pod(runs(creating))},
			Start{Stage: api.StageNotReady},
		},
		"the newest fails": {[]corev1.Pod{pod(runs(crashing)), pod(runs(backOff), newer)}, noImage},
	} {
		t.Run(name, func(t *testing.T) {
			w := Workload{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, APIVersion: appsVersion, Kind: "Deployment"}
			got := NewStart(w, tc.pods, at)
			if d := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(Start{}, "Pod", "Advice")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if (got.Advice == "") != (got.Failing == "") || got.Failing != "" && got.Pod == nil {
				t.Errorf("advice %q, pod %v", got.Advice, got.Pod)
			}
		})
	}
}

func TestPodsOfOtherKinds(t *testing.T) {
	crashes := startPod(t, runs(crashing))
	set := Workload{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "1"}, APIVersion: appsVersion, Kind: "StatefulSet"}
	gallery := Workload{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "1"}, APIVersion: "example.com/v1", Kind: "Gallery"}
	for name, tc := range map[string]struct {
		w     Workload
		owner metav1.OwnerReference
		want  bool
	}{
		"StatefulSet":          {set, metav1.OwnerReference{Kind: "StatefulSet", Name: "web", UID: "1"}, true},
		"StatefulSet before":   {set, metav1.OwnerReference{Kind: "StatefulSet", Name: "web", UID: "0"}, false},
		"a kind with its own":  {gallery, metav1.OwnerReference{Kind: "ReplicaSet", Name: "web-1"}, true},
		"a Job beside it":      {gallery, metav1.OwnerReference{Kind: "Job", Name: "web-1"}, false},
		"a DaemonSet's beside": {gallery, metav1.OwnerReference{Kind: "DaemonSet", Name: "web"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			tc.owner.Controller = new(true)
			crashes.OwnerReferences = []metav1.OwnerReference{tc.owner}
			if got := NewStart(tc.w, []corev1.Pod{crashes}, time.Now()); (got.Failing != "") != tc.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	long := strings.Repeat("ü", 2*longestFailing)
	const quota = "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"
	const policy = "ValidatingAdmissionPolicy 'owner' with binding 'owner' denied request: failed expression: has(object)"
	const webhook = `admission webhook "policy.example.com" denied the request: `
	for message, want := range map[string]string{
		`pods "web-abc-1" is forbidden: ` + quota:                                                           quota,
		`create Pod web-0 in StatefulSet web failed error: pods "web-0" is forbidden: exceeded quota: none`: "exceeded quota: none",
		webhook + "\n\tno owner\x00.":                                                                       webhook + "no owner",
		`pods "web-abc-1" is forbidden: ` + policy:                                                          policy,
		long: long,
	} {
		want = "Kubernetes refuses its pod: " + want
		if message == long {
			want = string([]rune(want)[:longestFailing-1]) + "…"
		}
		if got := Refused(message); got.Failing != want || got.Doubt == 0 {
			t.Errorf("got %q, want %q", got.Failing, want)
		}
	}
}

func TestWorkloadSaysThatItIsRefused(t *testing.T) {
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Generation: 2},
		Spec:       appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
		Status: appsv1.DeploymentStatus{ObservedGeneration: 2, Conditions: []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "no"},
		}},
	}
	if w, _ := NewWorkload(d); w.Refused != "no" || w.Selector != "app=web" {
		t.Errorf("refused %q, selector %q", w.Refused, w.Selector)
	}
	d.Generation = 3
	if w, _ := NewWorkload(d); w.Refused != "" {
		t.Errorf("refused as of before: %q", w.Refused)
	}
	d.Spec.Selector = nil
	if w, _ := NewWorkload(d); w.Selector != "" {
		t.Errorf("selector %q", w.Selector)
	}
}
