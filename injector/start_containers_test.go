// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// webStart judges the start of Deployment web five seconds after its sandbox was made.
func webStart(pods ...corev1.Pod) Start {
	w := Workload{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, APIVersion: appsVersion, Kind: "Deployment"}
	return NewStart(w, pods, time.Date(2026, 11, 23, 18, 0, 5, 0, time.UTC))
}

// waitsWith returns the status of a pod whose web container waits, with a message of any characters.
func waitsWith(reason, message string) string {
	return "containerStatuses: [{name: web, state: {waiting: {reason: " + reason + ", message: " + quoted(message) + "}}}]"
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// TestStages has how far pods with several containers have come, as a waiting page shows it.
func TestStages(t *testing.T) {
	const initializing = `{name: web, state: {waiting: {reason: PodInitializing}}}`
	inits := func(init, web string) string { return runs(web) + "\ninitContainerStatuses: [" + init + "]" }
	sandboxAt := func(at string) string { return strings.Replace(runs(creating), "18:00:00", at, 1) }
	onNode := func(p *corev1.Pod) { p.Spec.NodeName = "node1" }
	restarts := func(policy corev1.ContainerRestartPolicy) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.InitContainers[0].RestartPolicy = &policy }
	}
	for name, tc := range map[string]struct {
		status string
		change []func(*corev1.Pod)
		want   string
	}{
		"a node, and no status yet":      {`{}`, []func(*corev1.Pod){onNode}, api.StageStarting},
		"its sandbox is two seconds old": {sandboxAt("18:00:03"), nil, api.StagePulling},
		"its sandbox is one second old":  {sandboxAt("18:00:04"), nil, api.StageStarting},
		"its sandbox is not ready": {
			strings.Replace(runs(creating), `status: "True"`, `status: "False"`, 1), nil, api.StageStarting,
		},
		"its image cannot be pulled, without a sandbox": {waits("ErrImagePull", "no such host"), nil, api.StagePulling},
		"one container is up, the other starts": {
			runs(`{name: web, started: true, state: {running: {}}}, {name: metrics, started: false, state: {running: {}}}`), nil, api.StageStarting,
		},
		"one container starts, the other is up": {
			runs(`{name: web, started: false, state: {running: {}}}, {name: metrics, started: true, state: {running: {}}}`), nil, api.StageStarting,
		},
		"both are up": {
			runs(`{name: web, started: true, state: {running: {}}}, {name: metrics, started: true, state: {running: {}}}`), nil, api.StageNotReady,
		},
		"one container starts, the other is pulled": {
			runs(`{name: web, started: false, state: {running: {}}}, {name: metrics, state: {waiting: {reason: ContainerCreating}}}`),
			nil, api.StagePulling,
		},
		"it runs, and has no startup state yet": {runs(`{name: web, state: {running: {}}}`), nil, api.StageStarting},
		"it has just ended": {
			runs(`{name: web, started: false, state: {terminated: {exitCode: 1}}}`), nil, api.StageStarting,
		},
		"it crashes": {runs(crashing), nil, api.StageStarting},

		"a migration's image is pulled": {
			inits(`{name: migrate, state: {waiting: {reason: PodInitializing}}}`, initializing), nil, api.StagePulling,
		},
		"a migration's image is missing": {
			inits(`{name: migrate, state: {waiting: {reason: ErrImagePull}}}`, initializing), nil, api.StagePulling,
		},
		"a migration has failed, and is not restarted yet": {
			inits(`{name: migrate, state: {terminated: {exitCode: 1}}}`, initializing), nil, api.StageStarting,
		},
		"a migration is done": {
			inits(`{name: migrate, state: {terminated: {exitCode: 0}}}`, initializing), nil, api.StagePulling,
		},
		"a migration runs, and reports that it has started": {
			inits(`{name: migrate, started: true, state: {running: {}}}`, initializing), nil, api.StageStarting,
		},
		"a migration that is tried again runs": {
			inits(`{name: migrate, started: true, state: {running: {}}}`, initializing),
			[]func(*corev1.Pod){restarts(corev1.ContainerRestartPolicyOnFailure)},
			api.StageStarting,
		},
		"a sidecar runs, and has not started": {
			inits(`{name: proxy, started: false, state: {running: {}}}`, initializing), nil, api.StageStarting,
		},
		"a sidecar has ended": {
			inits(`{name: proxy, started: false, state: {terminated: {exitCode: 2}}}`, initializing), nil, api.StageStarting,
		},
		"a sidecar runs, and the app is up": {
			inits(`{name: proxy, started: true, state: {running: {}}}`, `{name: web, started: true, state: {running: {}}}`),
			nil, api.StageNotReady,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := webStart(startPod(t, tc.status, tc.change...)); got.Stage != tc.want || got.None || got.Ready {
				t.Errorf("stage %q, want %q: %+v", got.Stage, tc.want, got)
			}
		})
	}
}

// TestWhyContainersFail has what visitors and operators read about a container that cannot start: all of it.
func TestWhyContainersFail(t *testing.T) {
	const (
		look = "See kubectl describe pod -n shop web-abc-1"
		logs = "See kubectl logs -n shop web-abc-1 -c web --previous"
		pull = "Check the image's name, and imagePullSecrets if the image is private"
		none = "its image example.com/web:2 cannot be pulled"
	)
	ended := func(last string) string {
		return runs(`{name: web, restartCount: 2, lastState: {terminated: ` + last + `}, state: {waiting: {reason: CrashLoopBackOff}}}`)
	}
	for name, tc := range map[string]struct {
		status                  string
		failing, reason, advice string
		doubt                   time.Duration
	}{
		"a registry that refuses the node": {
			waitsWith("ImagePullBackOff", `failed to authorize: 401 Unauthorized`),
			none + ": its registry refuses it, or does not have it", "ImagePullBackOff", pull, 0,
		},
		"a registry that refuses the node, for the first time": {
			waitsWith("ErrImagePull", `pull access denied, repository does not exist or may require authorization`),
			none + ": its registry refuses it, or does not have it", "ImagePullBackOff", pull, pullDoubt,
		},
		"a registry that has no such tag": {
			waitsWith("ImagePullBackOff", `manifest unknown: tag 2 is not known`),
			none + ": there is no such image", "ImagePullBackOff", pull, 0,
		},
		"a registry that does not answer": {
			waitsWith("ImagePullBackOff", `failed to do request: Head "https://example.com/v2/": net/http: TLS handshake timeout`),
			none + ": its registry cannot be reached", "ImagePullBackOff",
			"Check the image's name, and whether node node1 reaches its registry", pullDoubt,
		},
		"a registry that is away while it denies nothing": {
			waitsWith("RegistryUnavailable", `dial tcp 192.0.2.1:443: i/o timeout: access denied`),
			none + ": its registry cannot be reached", "ImagePullBackOff",
			"Check the image's name, and whether node node1 reaches its registry", pullDoubt,
		},
		"a pull that fails for another reason": {
			waitsWith("ImagePullBackOff", `failed to extract layer: mount: no space left on device`),
			none + ": no space left on device", "ImagePullBackOff", pull, pullDoubt,
		},
		"a pull that fails without a cause": {waitsWith("ErrImagePull", "toomanyrequests"), none, "ImagePullBackOff", pull, pullDoubt},
		"a pull that fails without a word":  {waitsWith("ImagePullBackOff", ""), none, "ImagePullBackOff", pull, pullDoubt},
		"an image that cannot be inspected": {waitsWith("ImageInspectError", "x"), none, "ImagePullBackOff", pull, pullDoubt},
		"an image whose name is not one": {
			waitsWith("InvalidImageName", "x"), `"example.com/web:2" is not a valid image name`, "InvalidImageName", "Fix the image name", 0,
		},
		"an image that nobody put on a node": {
			waitsWith("ErrImageNeverPull", "x"), "its image example.com/web:2 is not on the node, and imagePullPolicy forbids pulling it",
			"ErrImageNeverPull", "Put the image on the node, or change imagePullPolicy", 0,
		},
		"an image that nobody signed": {
			waitsWith("SignatureValidationFailed", "x"), "its image example.com/web:2 has no valid signature", "SignatureValidationFailed",
			look, doubt,
		},
		"a ConfigMap that is missing": {
			waitsWith("CreateContainerConfigError", `configmap "web" not found`),
			`container web cannot be created: configmap "web" not found`, "CreateContainerConfigError", look, doubt,
		},
		"a runtime that refuses, on two lines": {
			waitsWith("CreateContainerError", "mkdir /data: \tread-only file system.\n"),
			"container web cannot be created: mkdir /data: read-only file system", "CreateContainerError", look, doubt,
		},
		"a command that does not exist": {
			waitsWith("RunContainerError", `exec: "/app": no such file`),
			`container web cannot be run: exec: "/app": no such file`, "RunContainerError", look, doubt,
		},
		"a hook that fails": {
			waitsWith("PostStartHookError", "exited with 1"), "container web cannot be run: exited with 1", "PostStartHookError", look, doubt,
		},
		"a hook before it that fails": {
			waitsWith("PreStartHookError", "no"), "container web cannot be created: no", "PreStartHookError", look, doubt,
		},
		"an exit": {
			ended(`{exitCode: 137, reason: Error}`),
			"container web has ended 3 times, the last time with exit code 137", "CrashLoopBackOff", logs, 0,
		},
		"too little memory": {
			ended(`{exitCode: 137, reason: OOMKilled}`),
			"container web has ended 3 times, the last time because it ran out of memory (OOMKilled)", "CrashLoopBackOff",
			"Raise the memory limit of the container", 0,
		},
		"a start that the runtime refuses": {
			ended(`{exitCode: 128, reason: ContainerCannotRun, message: "permission denied\n"}`),
			"container web cannot be run: permission denied", "CrashLoopBackOff", look, 0,
		},
		"a reason that passes": {waitsWith("ContainerCreating", "x"), "", "", "", 0},
		"a reason of tomorrow": {waitsWith("NodeIsMeditating", "x"), "", "", "", 0},
		"a crash whose end is not known": {
			runs(`{name: web, restartCount: 5, state: {waiting: {reason: CrashLoopBackOff}}}`), "", "", "", 0,
		},
		"a back-off of a container that has run on": {
			runs(`{name: web, restartCount: 5, lastState: {terminated: {exitCode: 1}}, started: false, state: {running: {}}}`), "", "", "", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := webStart(startPod(t, tc.status))
			want := Start{
				Stage: got.Stage, Failing: tc.failing, Reason: tc.reason, Advice: tc.advice, Doubt: tc.doubt, Pod: got.Pod,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWhichContainerFails tests that one failing container is enough, and that it is named as the pod's spec names it.
func TestWhichContainerFails(t *testing.T) {
	two := func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "metrics", Image: "example.com/metrics:7"})
	}
	const up = `{name: web, started: true, state: {running: {}}}`
	for name, tc := range map[string]struct {
		status, want string
	}{
		"the second": {
			runs(up + `, {name: metrics, state: {waiting: {reason: InvalidImageName}}}`), `"example.com/metrics:7" is not a valid image name`,
		},
		"an init container comes first": {
			runs(`{name: web, state: {waiting: {reason: ErrImageNeverPull}}}`) +
				"\ninitContainerStatuses: [{name: migrate, state: {waiting: {reason: RunContainerError, message: failed}}}]",
			"container migrate cannot be run: failed",
		},
		"one that the spec does not have": {
			runs(up + `, {name: injected, image: "registry.example.com/injected:1", state: {waiting: {reason: InvalidImageName}}}`),
			`"registry.example.com/injected:1" is not a valid image name`,
		},
		"neither": {runs(up + `, {name: metrics, started: false, state: {running: {}}}`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := webStart(startPod(t, tc.status, two)); got.Failing != tc.want || got.Pod == nil {
				t.Errorf("failing %q, want %q", got.Failing, tc.want)
			}
		})
	}
}

// TestComeback tests how long a container may crash that has been ready before, and what shows that it has been.
func TestComeback(t *testing.T) {
	crashes := runs(crashing)[len(sandbox):]
	for name, tc := range map[string]struct {
		status string
		fails  bool
	}{
		"down for a minute":                      {began("12:00:00") + wasReady("17:59:05") + crashes, true},
		"down for less":                          {began("12:00:00") + wasReady("17:59:06") + crashes, false},
		"unready ten seconds after it was bound": {began("17:59:00") + wasReady("17:59:10") + crashes, true},
		"unready eleven seconds after":           {began("17:59:00") + wasReady("17:59:11") + crashes, false},
		"nobody knows since when it is bound":    {wasReady("17:59:30") + crashes, true},
		"no condition says whether it was ready": {began("12:00:00") + `conditions: []` + crashes, true},
		"another condition changed a moment ago": {
			began("12:00:00") + strings.Replace(wasReady("17:59:30"), "Ready", "Initialized", 1) + crashes, true,
		},
		"it has been down for an hour, and has restarted once": {
			began("12:00:00") + wasReady("17:00:00") + strings.Replace(crashes, "restartCount: 2", "restartCount: 1", 1), false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := webStart(startPod(t, tc.status)); (got.Failing != "") != tc.fails {
				t.Errorf("failing %q", got.Failing)
			}
		})
	}
}
