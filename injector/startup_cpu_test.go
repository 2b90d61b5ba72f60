// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var errAway = errors.New("the API server is away")

// startingWorld is a workload whose Service asks for 2 CPUs while it starts, with an API server that resizes its pods.
type startingWorld struct {
	*scaledWorld

	// steps is how many writes succeed before the controller dies; negative if it does not.
	steps int
	// refusals are the errors of writes, by what is written: mark, resize or unmark.
	refusals map[string]error
	written  []string
}

// newStartingWorld returns an app that sleeps, and whose next wake creates a pod with these containers.
func newStartingWorld(t *testing.T, change ...func(*startingWorld)) *startingWorld {
	t.Helper()
	w := &startingWorld{
		steps: -1, refusals: map[string]error{},
		scaledWorld: newScaledWorld(t, sleeps, visited, func(w *scaledWorld) {
			w.startupCPU = true
			w.asks = []Asking{askingFor("web", func(s *Settings) { s.StartupCPU = "2" })}
		}),
	}
	w.resize = w.resizes
	for _, c := range change {
		c(w)
	}
	settled(w.scaledWorld)
	return w
}

func limited(pod *corev1.Pod, limits string) {
	for one := range strings.FieldsSeq(limits) {
		name, limit, _ := strings.Cut(one, "=")
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				if list[i].Name == name {
					list[i].Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(limit)}
				}
			}
		}
	}
}

// limits returns the CPU limits of a pod's containers.
func limits(pod *corev1.Pod) string {
	var out []string
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if limit, ok := c.Resources.Limits[corev1.ResourceCPU]; ok {
			out = append(out, c.Name+"="+limit.String())
		}
	}
	return strings.Join(out, " ")
}

// burstable gives a pod its CPU limits.
func burstable(all string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.QOSClass = corev1.PodQOSBurstable
		limited(pod, all)
	}
}

// creates adds a pod that is starting.
func (w *startingWorld) creates(change ...func(*corev1.Pod)) *corev1.Pod {
	w.t.Helper()
	pod := startPod(w.t, runs(creating), change...)
	pod.CreationTimestamp = metav1.NewTime(w.now)
	w.podList = append(w.podList, pod)
	return &w.podList[len(w.podList)-1]
}

// wakes wakes the app and creates its first pod.
func (w *startingWorld) wakes(all string) *corev1.Pod {
	w.t.Helper()
	wakes(w.scaledWorld)
	pod := w.creates(burstable(all))
	w.reconcile()
	return pod
}

func (w *startingWorld) isReady(pod *corev1.Pod) {
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
	isReady(w.scaledWorld)
}

// again reconciles until nothing is left to do soon.
func (w *startingWorld) again() {
	w.t.Helper()
	for range 4 {
		w.now = w.now.Add(firstPodLook)
		w.reconcile()
	}
}

// marked returns the pods that have the label.
func (w *scaledWorld) marked() []corev1.Pod {
	var out []corev1.Pod
	for i := range w.podList {
		if of, ok := MarkedFor(&w.podList[i]); ok && w.podList[i].Labels[RaisedCPU] != "" && of == w.workload.Ref().String() {
			out = append(out, w.podList[i])
		}
	}
	return out
}

// died ends a controller.
type died struct{}

// write makes one write, unless the controller dies before it or the write is refused.
func (w *startingWorld) write(what string, change func()) error {
	if w.steps == 0 {
		panic(died{})
	}
	w.steps--
	if err := w.refusals[what]; err != nil {
		return err
	}
	w.written = append(w.written, what)
	change()
	return nil
}

// resizes does what the controllers' podResizer does.
func (w *startingWorld) resizes(o WorkloadObservation, p *WorkloadPlan) {
	for _, r := range p.Resizes {
		i := slices.IndexFunc(w.podList, func(pod corev1.Pod) bool { return pod.Name == r.Pod.Name })
		if i < 0 {
			p.Resized(o, r, true, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, r.Pod.Name))
			continue
		}
		marked, err := w.resizePod(&w.podList[i], r)
		p.Resized(o, r, marked, err)
	}
}

func (w *startingWorld) resizePod(pod *corev1.Pod, r PodResize) (marked bool, err error) {
	unmark := func() {
		delete(pod.Labels, RaisedCPU)
		delete(pod.Annotations, RaisedCPU)
	}
	if r.Mark != "" {
		if err := w.write("mark", func() {
			pod.Annotations = map[string]string{RaisedCPU: r.Mark}
			pod.Labels[RaisedCPU] = "true"
		}); err != nil {
			return !ResizeRefused(err), err
		}
	}
	if len(r.Limits) > 0 {
		if err := w.write("resize", func() {
			for _, l := range r.Limits {
				limited(pod, l.Container+"="+l.Value.String())
			}
		}); err != nil {
			if ResizeRefused(err) && !r.Unmark {
				return w.write("unmark", unmark) != nil, err
			}
			return true, err
		}
	}
	if r.Unmark {
		return true, w.write("unmark", unmark)
	}
	return true, nil
}

// restarts replaces the controller, as a new leader would begin.
func (w *startingWorld) restarts() {
	w.memory = WorkloadMemory{CPU: StartupCPU{Marked: len(w.marked()) > 0}}
	w.steps = -1
}

// survives reconciles until the controller dies. It reports whether it did.
func (w *startingWorld) survives(act func()) (survived bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(died); !ok {
				panic(r)
			}
			survived = false
		}
	}()
	act()
	return true
}

// told fails the test unless there is exactly one event with that text.
func (w *startingWorld) told(text string) {
	w.t.Helper()
	n := 0
	for _, e := range w.events {
		if strings.Contains(e, text) {
			n++
		}
	}
	if n != 1 {
		w.t.Errorf("%d events with %q in\n%s", n, text, strings.Join(w.events, "\n"))
	}
}

func (w *startingWorld) refusedEvents() (out []string) {
	for _, e := range w.events {
		if strings.HasPrefix(e, ReasonStartupCPU) {
			out = append(out, e)
		}
	}
	return out
}

// TestStartupCPU raises limits from the wake until the pod is ready, and puts them back. Whatever is left alone is so all the time.
func TestStartupCPU(t *testing.T) {
	restart := func(name string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			for i := range pod.Spec.Containers {
				if c := &pod.Spec.Containers[i]; c.Name == name {
					c.ResizePolicy = []corev1.ContainerResizePolicy{
						{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.NotRequired},
						{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.RestartContainer},
					}
				}
			}
		}
	}
	second := func(pod *corev1.Pod) {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "log"})
	}
	pod := func(change ...func(*corev1.Pod)) []func(*corev1.Pod) { return change }
	const nothing = "none of its containers has a CPU limit below "
	class := func(class corev1.PodQOSClass) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Status.QOSClass = class }
	}
	for name, tc := range map[string]struct {
		pod         []func(*corev1.Pod)
		raised      string
		event       string
		startupCPUs []string
	}{
		"a lower limit":        {pod: pod(burstable("web=500m")), raised: "web=2"},
		"by the same number":   {pod: pod(burstable("web=1.5")), raised: "web=1500m", startupCPUs: []string{"1500m"}, event: nothing},
		"a higher limit stays": {pod: pod(second, burstable("web=500m log=3")), raised: "web=2 log=3"},
		"none stays":           {pod: pod(second, burstable("log=100m")), raised: "log=2"},
		"a sidecar":            {pod: pod(burstable("proxy=100m web=500m")), raised: "proxy=2 web=2"},
		"not what ends":        {pod: pod(burstable("migrate=100m web=500m")), raised: "migrate=100m web=2"},
		"the highest counts":   {pod: pod(burstable("web=500m")), raised: "web=4", startupCPUs: []string{"1", "4", "300m"}},
		"not what restarts": {
			pod: pod(second, burstable("web=500m log=1"), restart("log")), raised: "web=2 log=1", event: "container log",
		},
		"only what restarts": {pod: pod(burstable("web=500m"), restart("web")), raised: "web=500m", event: "container web"},
		"Guaranteed": {
			pod: pod(burstable("web=500m"), class(corev1.PodQOSGuaranteed)), raised: "web=500m", event: "Guaranteed",
		},
		"BestEffort":            {pod: pod(class(corev1.PodQOSBestEffort)), event: nothing + "2"},
		"all limits are higher": {pod: pod(burstable("web=3")), raised: "web=3", event: nothing + "2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStartingWorld(t, func(w *startingWorld) {
				for i, cpu := range tc.startupCPUs {
					a := askingFor(fmt.Sprint("web", i), func(s *Settings) { s.StartupCPU = cpu })
					if w.asks = append(w.asks, a); i == 0 {
						w.asks = []Asking{a}
					}
				}
			})
			wakes(w.scaledWorld)
			pod := w.creates(tc.pod...)
			before := limits(pod)
			w.reconcile()
			w.again()
			if got := limits(pod); got != tc.raised {
				t.Errorf("limits are raised to %q, want %q", got, tc.raised)
			}
			w.isReady(pod)
			w.again()
			if got := limits(pod); got != before || pod.Labels[RaisedCPU] != "" || pod.Annotations[RaisedCPU] != "" {
				t.Errorf("limits are put back to %q, want %q; labels %v, annotations %v", got, before, pod.Labels, pod.Annotations)
			}
			if got := w.refusedEvents(); tc.event == "" && len(got) > 0 {
				t.Errorf("events %v", got)
			} else if tc.event != "" {
				w.told(tc.event)
			}
			w.reconcile()
			if w.memory.CPU.Marked || w.asked[AskMarkedPods]+w.asked[AskPodList] > 0 {
				t.Errorf("pods are still listed: %v, %+v", w.asked, w.memory.CPU)
			}
		})
	}
}

// TestStartupCPUPace says how often pods are listed: often until the first pod is settled, and never without need.
func TestStartupCPUPace(t *testing.T) {
	w := newStartingWorld(t)
	if w.reconcile(); w.asked[AskPodList]+w.asked[AskMarkedPods] > 0 {
		t.Errorf("a sleeping app's pods are listed: %v", w.asked)
	}
	wakes(w.scaledWorld)
	for range 3 {
		if p := w.reconcile(); w.asked[AskPodList] != 1 || p.After > firstPodLook || p.After == 0 {
			t.Errorf("no pod yet: asked %v, again after %s", w.asked, p.After)
		}
	}
	w.now = w.now.Add(time.Hour)
	if p := w.reconcile(); p.After < minLook {
		t.Errorf("no pod for long: again after %s", p.After)
	}
	w.now = w.now.Add(-time.Hour)
	pod := w.creates(burstable("web=500m"))
	w.reconcile()
	w.now = w.now.Add(firstPodLook)
	if p := w.reconcile(); w.asked[AskPodList] > 0 || w.asked[AskMarkedPods] != 1 || p.After < firstPodLook {
		t.Errorf("it is raised: asked %v, again after %s", w.asked, p.After)
	}
	w.isReady(pod)
	w.again()
	if w.reconcile(); w.asked[AskPodList]+w.asked[AskMarkedPods] > 0 {
		t.Errorf("it is awake: asked %v", w.asked)
	}
	if want := []string{"mark", "resize", "resize", "unmark"}; !slices.Equal(w.written, want) {
		t.Errorf("wrote %v, want %v", w.written, want)
	}
	without := newStartingWorld(t, func(w *startingWorld) { w.asks = []Asking{asking("web", sentinel)} })
	wakes(without.scaledWorld)
	if without.reconcile(); without.asked[AskPodList]+without.asked[AskMarkedPods] > 0 {
		t.Errorf("nobody asks for more CPU: asked %v", without.asked)
	}
}

// TestStartupCPUOfOtherPods tests that only the first pod of a start gets more CPU.
func TestStartupCPUOfOtherPods(t *testing.T) {
	w := newStartingWorld(t)
	wakes(w.scaledWorld)
	w.workload.Replicas = 3
	w.creates(burstable("web=500m"), func(p *corev1.Pod) { p.Name, p.Spec.NodeName = "web-abc-0", "" })
	w.now = w.now.Add(time.Second)
	w.creates(burstable("web=500m"), func(p *corev1.Pod) { p.Name = "web-abc-1" })
	w.now = w.now.Add(time.Second)
	w.creates(burstable("web=500m"), func(p *corev1.Pod) { p.Name = "web-abc-2" })
	w.creates(burstable("web=500m"), func(p *corev1.Pod) { p.Name, p.OwnerReferences[0].Name = "of-others", "other-abc" })
	all := func() (out []string) {
		for i := range w.podList {
			out = append(out, w.podList[i].Name+" "+limits(&w.podList[i]))
		}
		return out
	}
	w.again()
	want := []string{"web-abc-0 web=500m", "web-abc-1 web=2", "web-abc-2 web=500m", "of-others web=500m"}
	if got := all(); !slices.Equal(got, want) {
		t.Errorf("raised the oldest with a node: %v, want %v", got, want)
	}
	// Another pod becomes ready first: the start is over.
	w.isReady(&w.podList[2])
	w.workload.Replicas = 3
	w.again()
	want[1] = "web-abc-1 web=500m"
	if got := all(); !slices.Equal(got, want) || w.podList[1].Labels[RaisedCPU] != "" {
		t.Errorf("another pod is ready: %v, want %v", got, want)
	}
	// Its last ready pod restarts, or a rollout recreates it: that is no wake.
	w.podList = nil
	w.workload.ReadyReplicas = 0
	pod := w.creates(burstable("web=500m"))
	w.again()
	if got := limits(pod); got != "web=500m" || w.asked[AskPodList] > 0 {
		t.Errorf("raised without a wake to %s, asked %v", got, w.asked)
	}
}

// TestStartupCPUOfNextPod tests that a pod that replaces the first before that was ready gets its CPU.
func TestStartupCPUOfNextPod(t *testing.T) {
	w := newStartingWorld(t)
	w.wakes("web=500m")
	w.podList[0].DeletionTimestamp = &metav1.Time{Time: w.now}
	w.again()
	next := w.creates(burstable("web=700m"), func(p *corev1.Pod) { p.Name = "web-abc-2" })
	w.again()
	if got := limits(next); got != "web=2" {
		t.Errorf("the next pod has %s", got)
	}
	// The app falls asleep before it is ready: its pod takes the limits with it.
	sleeps(w.scaledWorld)
	w.podList = nil
	w.again()
	if w.memory.CPU.Marked || w.memory.CPU.Starting || w.memory.CPU.Settled {
		t.Errorf("remembers %+v", w.memory.CPU)
	}
}

// TestStartupCPUIsChangedMeanwhile tests that a limit that somebody else has set is left alone, and other containers are put back.
func TestStartupCPUIsChangedMeanwhile(t *testing.T) {
	w := newStartingWorld(t)
	pod := w.wakes("proxy=100m web=500m")
	limited(pod, "web=1")
	w.again()
	if got := limits(pod); got != "proxy=2 web=1" {
		t.Errorf("during the start: %s", got)
	}
	w.isReady(pod)
	w.again()
	if got := limits(pod); got != "proxy=100m web=1" || pod.Labels[RaisedCPU] != "" {
		t.Errorf("put back to %s, labels %v", got, pod.Labels)
	}
}

// TestStartupCPUIsGivenUp puts limits back as soon as nobody asks for them, whatever the pod does.
func TestStartupCPUIsGivenUp(t *testing.T) {
	for name, change := range map[string]func(*startingWorld){
		"the annotation is removed": func(w *startingWorld) { w.asks = []Asking{asking("web", sentinel)} },
		"the Service is restored":   func(w *startingWorld) { retires(w.scaledWorld) },
		"it goes past us":           func(w *startingWorld) { w.asks[0].Service.Spec.Selector = map[string]string{"app": "web"} },
		"the Service is deleted":    func(w *startingWorld) { w.asks = nil },
		"and nothing was remembered": func(w *startingWorld) {
			w.asks, w.so, w.workload.Annotations = nil, nil, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStartingWorld(t)
			pod := w.wakes("web=500m")
			if got := limits(pod); got != "web=2" {
				t.Fatalf("raised to %s", got)
			}
			change(w)
			w.again()
			if got := limits(pod); got != "web=500m" || pod.Labels[RaisedCPU] != "" {
				t.Errorf("put back to %s, labels %v", got, pod.Labels)
			}
			if w.memory.CPU.Marked {
				t.Errorf("remembers %+v", w.memory.CPU)
			}
		})
	}
}

// TestStartupCPUIsLowered tests that a lower value applies to the start that goes on.
func TestStartupCPUIsLowered(t *testing.T) {
	w := newStartingWorld(t)
	pod := w.wakes("web=500m")
	w.asks = []Asking{askingFor("web", func(s *Settings) { s.StartupCPU = "1" })}
	w.again()
	if got := limits(pod); got != "web=1" {
		t.Errorf("raised to %s", got)
	}
	w.isReady(pod)
	w.again()
	if got := limits(pod); got != "web=500m" {
		t.Errorf("put back to %s", got)
	}
}

// TestStartupCPUOfOrphans puts the limits back of pods whose workload is gone.
func TestStartupCPUOfOrphans(t *testing.T) {
	w := newStartingWorld(t)
	w.wakes("web=500m")
	ending, plain := w.podList[0].DeepCopy(), startPod(t, "{}")
	ending.DeletionTimestamp = &metav1.Time{Time: w.now}
	got := PutBack([]corev1.Pod{w.podList[0], *ending, plain})
	want := []CPULimit{{Container: "web", Value: resource.MustParse("500m")}}
	if len(got) != 1 || !got[0].Unmark || cmp.Diff(want, got[0].Limits) != "" {
		t.Errorf("got %+v", got)
	}
}

// TestStartupCPUOfLies tests that a mark that somebody else has written does not make us raise limits.
func TestStartupCPUOfLies(t *testing.T) {
	for name, mark := range map[string]string{
		"it would be raised at the end": `{"workload":"Deployment/web","to":"500m","from":{"web":"8"}}`,
		"it would lose its limit":       `{"workload":"Deployment/web","to":"500m","from":{"web":"0"}}`,
		"nobody's":                      `{"to":"2","from":{"web":"500m"}}`,
		"nothing":                       `{"workload":"Deployment/web","to":"2"}`,
		"no mark":                       `much`,
	} {
		pod := startPod(t, "{}", burstable("web=500m"))
		pod.Annotations = map[string]string{RaisedCPU: mark}
		if got := PutBack([]corev1.Pod{pod}); len(got) > 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	w := newStartingWorld(t)
	wakes(w.scaledWorld)
	pod := w.creates(burstable("web=500m"), func(pod *corev1.Pod) {
		pod.Labels[RaisedCPU] = "true"
		pod.Annotations = map[string]string{RaisedCPU: `{"workload":"Deployment/web","to":"64","from":{"web":"500m"}}`}
	})
	w.again()
	if got := limits(pod); got != "web=2" {
		t.Errorf("raised to %s", got)
	}
}

// TestStartupCPUAfterCrashes lets the controller die before each of its writes, and between two of them. The next one ends with the
// same pod, and raises the limits if the start goes on.
func TestStartupCPUAfterCrashes(t *testing.T) {
	for steps := range 5 { // mark, resize; put back, unmark; and none
		for _, readyMeanwhile := range []bool{false, true} {
			t.Run(fmt.Sprintf("after %d writes, ready meanwhile %t", steps, readyMeanwhile), func(t *testing.T) {
				w := newStartingWorld(t)
				w.steps = steps
				wakes(w.scaledWorld)
				pod := w.creates(burstable("proxy=100m web=500m log=1"))
				survived := w.survives(func() {
					w.reconcile()
					w.again()
				})
				if !survived && !readyMeanwhile {
					w.restarts()
					w.again()
					if got := limits(pod); got != "proxy=2 web=2" {
						t.Errorf("the next controller leaves a starting pod with %s", got)
					}
				}
				w.isReady(pod)
				if survived = w.survives(w.again); !survived || readyMeanwhile {
					w.restarts()
					w.again()
				}
				if got := limits(pod); got != "proxy=100m web=500m" || pod.Labels[RaisedCPU] != "" || pod.Annotations[RaisedCPU] != "" {
					t.Errorf("ends with %s, labels %v, annotations %v", got, pod.Labels, pod.Annotations)
				}
				if w.reconcile(); w.asked[AskMarkedPods] > 0 {
					t.Error("marked pods are still listed")
				}
			})
		}
	}
}

// FuzzRaisedCPU tests that whatever an annotation says, only limits are put back that are as it says we have set them.
func FuzzRaisedCPU(f *testing.F) {
	for _, seed := range []string{
		`{"workload":"Deployment/web","to":"2","from":{"web":"500m"}}`, `{"workload":"Deployment/web","to":"2","from":{"web":"2"}}`,
		`{"workload":"Deployment/web","to":"1","from":{"web":"500m","none":"1"}}`, `{"workload":"Deployment/web"}`, "2", "true", "", "null",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		pod := startPod(t, "{}", burstable("web=2"))
		pod.Annotations = map[string]string{RaisedCPU: text}
		of, marked := MarkedFor(&pod)
		got := PutBack([]corev1.Pod{pod})
		if marked != (len(got) == 1) || marked && (of == "" || !got[0].Unmark) {
			t.Fatalf("marked for %q, %t; put back by %+v", of, marked, got)
		}
		for _, r := range got {
			mark, _ := markOf(&pod)
			if len(r.Limits) > 0 && (r.Limits[0].Container != "web" || mark.To.Cmp(resource.MustParse("2")) != 0) {
				t.Errorf("puts back %+v", r.Limits)
			}
		}
	})
}

// denied is what the API server says for a reason.
func denied(why string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web-abc-1", errors.New(why))
}

// TestStartupCPUIsRefused tests that a start goes on as it is if more CPU is refused. One event says so, until it is granted once.
func TestStartupCPUIsRefused(t *testing.T) {
	old := apierrors.NewGenericServerResponse(404, "PATCH", schema.GroupResource{Resource: "pods"}, "web-abc-1", "404 page not found", 0, true)
	for name, tc := range map[string]struct {
		refusals map[string]error
		want     string
		advice   string
	}{
		"an old API server": {map[string]error{"resize": old}, "this Kubernetes cannot resize pods in place", "Upgrade"},
		"an API server without it": {
			map[string]error{"resize": &apierrors.StatusError{ErrStatus: metav1.Status{Code: 404, Reason: metav1.StatusReasonNotFound}}},
			"this Kubernetes cannot resize pods in place", "Upgrade",
		},
		"without the method": {
			map[string]error{"resize": apierrors.NewMethodNotSupported(schema.GroupResource{Resource: "pods"}, "patch")},
			"this Kubernetes cannot resize pods in place", "Upgrade",
		},
		"a quota": {
			map[string]error{"resize": denied("exceeded quota: cpu, requested: limits.cpu=1500m, used: limits.cpu=500m, limited: limits.cpu=1")},
			"exceeded quota: cpu, requested: limits.cpu=1500m", "Raise that ResourceQuota",
		},
		"a LimitRange": {
			map[string]error{"resize": denied("maximum cpu usage per Container is 1, but limit is 2")},
			"maximum cpu usage per Container is 1, but limit is 2", "Change what refuses it",
		},
		"a policy": {
			map[string]error{"mark": denied("ValidatingAdmissionPolicy 'pods' denied request: hands off")},
			"ValidatingAdmissionPolicy 'pods' denied request: hands off",
			"Let that policy allow",
		},
		"no right": {
			map[string]error{"mark": denied(`User "x" cannot patch resource "pods" in API group ""`)},
			`User "x" cannot patch resource "pods"`,
			"as scale-to-zero's chart does",
		},
		"an invalid pod": {
			map[string]error{"resize": apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "web-abc-1", nil)},
			`Pod "web-abc-1" is invalid`, "Change what refuses it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStartingWorld(t)
			w.refusals = tc.refusals
			for range 2 { // starts
				w.podList = nil
				pod := w.wakes("web=500m")
				tries := len(w.written)
				w.again()
				if got := limits(pod); got != "web=500m" || pod.Labels[RaisedCPU] != "" || len(w.written) != tries {
					t.Errorf("limits %s, labels %v, written %v", got, pod.Labels, w.written)
				}
				w.isReady(pod)
				w.again()
				sleeps(w.scaledWorld)
				w.again()
			}
			w.told("StartupCPURefused: Deployment/web does not get all the CPU that annotation scale-to-zero/startup-cpu asks for: " + tc.want)
			w.told(tc.advice)
			w.refusals = nil
			w.podList = nil
			w.wakes("web=500m")
			if w.refusals = tc.refusals; slices.Contains(w.memory.CPU.Refused, cpuServer) {
				t.Errorf("a grant does not count: %+v", w.memory.CPU)
			}
		})
	}
}

// TestStartupCPUIsTriedAgain tests what is no refusal: the limits are raised, or put back, a little later.
func TestStartupCPUIsTriedAgain(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	for name, tc := range map[string]struct {
		err  error
		soon bool
	}{
		"the API server is away": {errAway, true},
		"a time-out":             {apierrors.NewTimeoutError("busy", 1), true},
		"a conflict":             {apierrors.NewConflict(pods, "web-abc-1", errAway), false},
		"it is gone":             {apierrors.NewNotFound(pods, "web-abc-1"), false},
	} {
		for _, step := range []string{"mark", "resize", "unmark"} {
			t.Run(name+", "+step, func(t *testing.T) {
				w := newStartingWorld(t)
				check := func(act func() WorkloadPlan) {
					t.Helper()
					w.refusals = map[string]error{step: tc.err}
					p := act()
					failed := len(p.Resizes) == 1 && (step == "resize" || p.Resizes[0].Unmark == (step == "unmark"))
					if w.refusals = nil; failed && (p.Soon != tc.soon || !tc.soon && (p.After == 0 || p.After >= firstPodLook)) {
						t.Errorf("soon %t, after %s", p.Soon, p.After)
					}
				}
				wakes(w.scaledWorld)
				pod := w.creates(burstable("web=500m"))
				check(w.reconcile)
				w.again()
				if got := limits(pod); got != "web=2" {
					t.Errorf("raised to %s", got)
				}
				w.isReady(pod)
				check(w.reconcile)
				w.again()
				if got := limits(pod); got != "web=500m" || pod.Labels[RaisedCPU] != "" {
					t.Errorf("put back to %s, labels %v", got, pod.Labels)
				}
				if got := w.refusedEvents(); len(got) > 0 {
					t.Errorf("events %v", got)
				}
			})
		}
	}
}

// TestStartupCPUCannotBePutBack tests that this is reported once, and tried until it succeeds.
func TestStartupCPUCannotBePutBack(t *testing.T) {
	w := newStartingWorld(t)
	pod := w.wakes("web=500m")
	w.isReady(pod)
	w.refusals = map[string]error{"resize": denied("minimum cpu usage per Container is 1, but limit is 500m")}
	w.again()
	w.told("The CPU limits of pod web-abc-1 cannot be put back: minimum cpu usage per Container is 1, but limit is 500m. Change what refuses")
	w.asks = []Asking{asking("web", sentinel)} // nor is it told again when nobody asks for more CPU
	for range 5 {
		p := w.reconcile()
		if len(p.Resizes) > 0 || p.After < time.Second {
			t.Fatalf("it is tried again at once, or looked at after %s", p.After)
		}
		w.now = w.now.Add(time.Second)
	}
	w.refusals = map[string]error{"resize": denied("request 8c2f is refused")}
	w.now = w.now.Add(KindRetry)
	w.reconcile()
	if got := w.refusedEvents(); len(got) != 1 {
		t.Errorf("events %q", got)
	}
	w.refusals, w.now = nil, w.now.Add(KindRetry)
	w.again()
	if got := limits(pod); got != "web=500m" || pod.Labels[RaisedCPU] != "" || len(w.memory.CPU.Refused) > 0 {
		t.Errorf("put back to %s, labels %v, remembers %+v", got, pod.Labels, w.memory.CPU)
	}
}

// TestStartupCPUIsRounded tests that a value is what the API server makes of it, so that a limit is recognized at the end.
func TestStartupCPUIsRounded(t *testing.T) {
	if q, ok := parseStartupCPU("1.3333"); !ok || q.String() != "1334m" {
		t.Errorf("%s, %v", q.String(), ok)
	}
}

// TestStartupCPUAndKubelet reports once what the kubelet does with the resize.
func TestStartupCPUAndKubelet(t *testing.T) {
	for name, tc := range map[string]struct {
		condition corev1.PodCondition
		want      string
	}{
		"not on this node": {
			corev1.PodCondition{Type: corev1.PodResizePending, Reason: corev1.PodReasonInfeasible, Message: "no swap"},
			"the kubelet of node node1 does not resize its pod (Infeasible): no swap. See kubectl describe pod -n shop web-abc-1",
		},
		"not now": {
			corev1.PodCondition{Type: corev1.PodResizePending, Reason: corev1.PodReasonDeferred, Message: "no room"},
			"(Deferred): no room. Make room on that node",
		},
		"it fails": {
			corev1.PodCondition{Type: corev1.PodResizeInProgress, Reason: corev1.PodReasonError, Message: "no cgroup"},
			"(Error): no cgroup. See kubectl describe pod",
		},
		"it is being done": {corev1.PodCondition{Type: corev1.PodResizeInProgress}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStartingWorld(t)
			for range 2 { // starts
				w.podList = nil
				pod := w.wakes("web=500m")
				tc.condition.Status = corev1.ConditionTrue
				pod.Status.Conditions = append(pod.Status.Conditions, tc.condition)
				w.again()
				w.isReady(pod)
				w.again()
				if got := limits(pod); got != "web=500m" {
					t.Errorf("put back to %s", got)
				}
				sleeps(w.scaledWorld)
				w.again()
			}
			if tc.want != "" {
				w.told(tc.want)
			} else if got := w.refusedEvents(); len(got) > 0 {
				t.Errorf("events %v", got)
			}
		})
	}
}

// TestStartupCPUIsDisabled tests that the annotation alone causes one event that names the chart's value, and no look at a pod.
func TestStartupCPUIsDisabled(t *testing.T) {
	w := newStartingWorld(t, func(w *startingWorld) { w.startupCPU = false })
	w.memory = WorkloadMemory{}
	pod := w.wakes("web=500m")
	w.again()
	w.told("the chart's value startupCPU.enabled is false. Set it to true, or remove annotation scale-to-zero/startup-cpu")
	if got := limits(pod); got != "web=500m" || w.asked[AskPodList]+w.asked[AskMarkedPods] > 0 {
		t.Errorf("limits %s, asked %v", got, w.asked)
	}
	w.events = nil
	w.asks = []Asking{asking("web", sentinel)}
	w.again()
	w.asks = []Asking{askingFor("web", func(s *Settings) { s.StartupCPU = "2" })}
	w.again()
	w.told("the chart's value startupCPU.enabled is false")
}

// TestStartupCPUOfFailedPlans tests that what is known about raised limits survives a plan that fails in another step.
func TestStartupCPUOfFailedPlans(t *testing.T) {
	w := newStartingWorld(t)
	w.fails = true
	pod := w.wakes("web=500m")
	w.fails = true
	w.isReady(pod)
	w.again()
	if got := limits(pod); got != "web=500m" {
		t.Errorf("put back to %s", got)
	}
}
