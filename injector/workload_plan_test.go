// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// scaledWorld is a workload with its surroundings.
type scaledWorld struct {
	t   *testing.T
	now time.Time

	workload Workload
	asks     []Asking
	so       *keda.ScaledObject
	// hpas and foreign are what the workload's owner has set up to scale it. Without admission, foreign gets no trigger.
	hpas       []autoscalingv2.HorizontalPodAutoscaler
	foreign    []keda.ScaledObject
	unadmitted bool
	keda       bool
	noKEDA     string // why KEDA, which is installed, is not used
	hpa        HPAAnswer
	use        *Use
	count      CountAnswer
	pods       Start
	calls      map[string]Call
	early      time.Time
	podList    []corev1.Pod
	// startupCPU says that the chart allows to raise limits. resize carries that part of a plan out.
	startupCPU bool
	resize     func(WorkloadObservation, *WorkloadPlan)

	memory WorkloadMemory
	asked  map[WorkloadQuestion]int
	events []string
	fails  bool // the next write
}

// newScaledWorld returns a workload with two ready replicas, and one redirected Service that routes to it.
func newScaledWorld(t *testing.T, change ...func(*scaledWorld)) *scaledWorld {
	t.Helper()
	w := &scaledWorld{
		t: t, now: noon, keda: true, count: CountAnswer{Known: true, Active: true},
		workload: workload("Deployment", "web", map[string]string{"app": "web"}),
	}
	w.workload.Replicas, w.workload.ReadyReplicas = 2, 2
	w.asks = []Asking{asking("web", sentinel)}
	for _, c := range change {
		c(w)
	}
	return w
}

// asking returns the route slice of a Service that lets its workload wake with one replica.
func asking(name string, change ...func(*corev1.Service)) Asking {
	settings := DefaultSettings()
	settings.WakeReplicas = 1
	s := service(append([]func(*corev1.Service){called(name)}, change...)...)
	routes := NewRoutes(s, settings, workload("Deployment", "web", nil), map[string]int32{"http": 10000})
	slice := RouteSlices(s, s, routes, settings, Published{})[0]
	return Asking{Slice: &slice, Routes: routes, Service: s}
}

func (w *scaledWorld) observe() WorkloadObservation {
	o := WorkloadObservation{
		Now: w.now, Workload: w.workload, Asks: w.asks, Memory: w.memory,
		Install: Install{KEDA: w.keda, NoKEDA: w.noKEDA, Scaler: Scaler{Address: "interceptors:9090"}, StartupCPU: w.startupCPU},
		Calls:   w.calls, Early: w.early,
		Object: &appsv1.Deployment{ObjectMeta: w.workload.ObjectMeta},
	}
	o.HPAs = w.hpas
	for i := range w.foreign {
		o.ScaledObjects = append(o.ScaledObjects, *w.foreign[i].DeepCopy())
	}
	if w.so != nil {
		o.ScaledObject = w.so.DeepCopy()
		o.ScaledObjects = append(o.ScaledObjects, *o.ScaledObject)
	}
	return o
}

func (w *scaledWorld) plan() WorkloadPlan {
	w.t.Helper()
	o := w.observe()
	w.asked = map[WorkloadQuestion]int{}
	p, q := PlanWorkload(o)
	for q != NoWorkloadQuestion {
		if w.asked[q]++; w.asked[q] > 1 {
			w.t.Fatalf("question %d is asked again", q)
		}
		switch q {
		case AskUse:
			o.Answers.Use = &UseAnswer{w.use}
		case AskCount:
			o.Answers.Count = &w.count
		case AskPods:
			o.Answers.Pods = &w.pods
		case AskHPA:
			o.Answers.HPA = &w.hpa
		case AskPodList:
			o.Answers.Listed = &PodsAnswer{slices.Clone(w.podList)}
		case AskMarkedPods:
			o.Answers.Marked = &PodsAnswer{w.marked()}
		case NoWorkloadQuestion:
		}
		p, q = PlanWorkload(o)
	}
	return p
}

// reconcile plans once and carries out the plan.
func (w *scaledWorld) reconcile() WorkloadPlan {
	w.t.Helper()
	p := w.plan()
	if w.resize != nil {
		w.resize(w.observe(), &p)
	}
	w.memory.Life, w.memory.CPU, w.memory.Learning = p.Life, p.Memory.CPU, p.Memory.Learning
	w.report(p.Story)
	for _, s := range p.Slices {
		setAnnotation(s, api.ProgressAnnotation, p.Progress)
		setAnnotation(s, api.LearnedAnnotation, p.Learned)
	}
	if w.fails {
		w.fails = false
		return p
	}
	if p.Disown {
		w.workload.ManagedFields = nil
	}
	if p.Remember != nil {
		setAnnotation(&w.workload, ReplicasAnnotation, strings.TrimPrefix(fmt.Sprint(*p.Remember), "0"))
	}
	if p.Autoscaler != nil {
		setAnnotation(&w.workload, AutoscalerAnnotation, *p.Autoscaler)
	}
	if p.Trigger != nil {
		w.annotate(p.Trigger)
	}
	if write := p.ScaledObject; write != nil {
		if (write.From == nil) != (w.so == nil) {
			w.t.Fatal("a ScaledObject is created that is there, or updated that is not")
		}
		w.so = write.To.DeepCopy()
		if w.so.DeletionTimestamp != nil && len(w.so.Finalizers) == 0 {
			w.so = nil
		}
	}
	if p.Scale != nil {
		w.scale(*p.Scale)
	}
	if p.Delete != nil {
		if w.workload.Replicas == 0 && len(w.hpas)+len(w.foreign) == 0 {
			w.t.Fatal("the ScaledObject is deleted while the workload is at zero")
		}
		if len(w.so.Finalizers) > 0 {
			w.so.DeletionTimestamp = &metav1.Time{Time: w.now}
		} else {
			w.so = nil
		}
	}
	w.report(p.Reports)
	if w.memory = p.Memory; p.Forget {
		w.memory = WorkloadMemory{}
	}
	return p
}

// annotate writes annotations of a ScaledObject of the workload's owner, through admission.
func (w *scaledWorld) annotate(write *AnnotationWrite) {
	for i := range w.foreign {
		so := &w.foreign[i]
		if so.Name != write.Object.GetName() {
			continue
		}
		old := so.DeepCopy()
		for key, value := range write.Annotations {
			text, _ := value.(string)
			setAnnotation(so, key, text)
		}
		if !w.unadmitted {
			AdmitScaledObject(so, old, true)
		}
	}
}

func (w *scaledWorld) report(reports []Report) {
	for _, r := range reports {
		w.events = append(w.events, r.Reason+": "+r.Note)
	}
}

// wantReasons checks the reasons of the events so far.
func (w *scaledWorld) wantReasons(want []string) {
	w.t.Helper()
	var got []string
	for _, e := range w.events {
		reason, _, _ := strings.Cut(e, ":")
		got = append(got, reason)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("got\n%s\nwant %v", strings.Join(w.events, "\n"), want)
	}
}

func (w *scaledWorld) scale(n int32) {
	unsafe := false
	for _, a := range w.asks {
		unsafe = unsafe || a.Routes.Retiring
	}
	if n == 0 && unsafe {
		w.t.Fatal("put to sleep while a Service is being restored")
	}
	w.workload.Replicas = n
	w.workload.ReadyReplicas = min(w.workload.ReadyReplicas, n)
}

func outline(p WorkloadPlan) string {
	var parts []string
	for _, r := range p.Story {
		parts = append(parts, r.Reason)
	}
	if p.Disown {
		parts = append(parts, "disown")
	}
	if p.Remember != nil {
		parts = append(parts, fmt.Sprintf("remember %d", *p.Remember))
	}
	if p.Autoscaler != nil {
		parts = append(parts, "beside "+*p.Autoscaler)
	}
	if p.Trigger != nil {
		keys := slices.Sorted(maps.Keys(p.Trigger.Annotations))
		for i, key := range keys {
			if p.Trigger.Annotations[key] == nil {
				keys[i] += "-"
			}
		}
		parts = append(parts, "annotate "+p.Trigger.Object.GetName()+" "+strings.Join(keys, " "))
	}
	if w := p.ScaledObject; w != nil {
		verb := "update"
		if w.From == nil {
			verb = "create"
		}
		parts = append(parts, fmt.Sprintf("%s %s %d-%d", verb, w.To.Name, *w.To.Spec.MinReplicaCount, *w.To.Spec.MaxReplicaCount))
	}
	if p.Scale != nil {
		parts = append(parts, fmt.Sprintf("scale to %d", *p.Scale))
	}
	if p.Delete != nil {
		parts = append(parts, "delete "+p.Delete.Name)
	}
	if len(p.Slices) > 0 {
		parts = append(parts, "progress "+p.Progress)
	}
	if p.Forget {
		parts = append(parts, "forget")
	}
	for _, r := range p.Reports {
		parts = append(parts, r.Reason)
	}
	if p.Soon {
		parts = append(parts, "soon")
	}
	if p.After > 0 {
		parts = append(parts, "after "+p.After.String())
	}
	return strings.Join(parts, ", ")
}

func withoutKEDA(w *scaledWorld) { w.keda, w.count = false, CountAnswer{} }

func settled(w *scaledWorld) {
	w.t.Helper()
	for range 3 {
		w.reconcile()
	}
	w.events = nil
}

func passes(d time.Duration) func(*scaledWorld) {
	return func(w *scaledWorld) { w.now = w.now.Add(d) }
}

func sleeps(w *scaledWorld) { w.workload.Replicas, w.workload.ReadyReplicas = 0, 0 }

func wakes(w *scaledWorld) { w.workload.Replicas, w.workload.ReadyReplicas = 1, 0 }

func isReady(w *scaledWorld) { w.workload.Replicas, w.workload.ReadyReplicas = 1, 1 }

func retires(w *scaledWorld) {
	w.asks[0].Routes.Retiring = true
	w.asks[0].Slice.Annotations[api.RoutesAnnotation] = encodeRoutes(w.asks[0].Routes)
}

func look(w *scaledWorld) { w.reconcile() }

// nobodyAsked says that the interceptors have counted for long, and no request; visited that one has just come.
func nobodyAsked(w *scaledWorld) { w.use = &Use{Idle: time.Hour, Counted: time.Hour} }
func visited(w *scaledWorld)     { w.use = &Use{Pending: 1, Counted: time.Hour} }

// TestWorkloadPlans has the rows of the table at WorkloadPlan, and what a start adds.
func TestWorkloadPlans(t *testing.T) {
	past := func(w *scaledWorld) { w.asks[0] = asking("web") }
	second := func(w *scaledWorld) { w.asks = append(w.asks, asking("api", sentinel)) }
	failing := func(w *scaledWorld) {
		w.pods = Start{Stage: api.StagePulling, Failing: "its image cannot be pulled", Reason: "ImagePullBackOff", Advice: "Check it"}
	}
	nobody := func(w *scaledWorld) { w.asks = nil }
	finalized := func(w *scaledWorld) { w.so.Finalizers = []string{keda.Finalizer} }
	deleted := func(w *scaledWorld) { w.so.DeletionTimestamp = &metav1.Time{Time: w.now} }
	for name, tc := range map[string]struct {
		world []func(*scaledWorld)
		want  string
	}{
		"nothing asks for it":      {[]func(*scaledWorld){nobody}, "forget"},
		"redirected":               {nil, "remember 2, create web-deployment 0-2, after 1m0s"},
		"redirected, again":        {[]func(*scaledWorld){look}, "after 1m0s"},
		"redirected, without KEDA": {[]func(*scaledWorld){withoutKEDA}, "remember 2, after 15s"},
		"not redirected yet":       {[]func(*scaledWorld){past}, ""},
		"not redirected any more":  {[]func(*scaledWorld){settled, past}, "update web-deployment 1-2, after 1m0s"},
		"failed open": {
			[]func(*scaledWorld){settled, func(w *scaledWorld) { w.asks[0].Slice.Annotations[FailOpenAnnotation] = "true" }},
			"update web-deployment 1-2, after 1m0s",
		},
		"failed open, asleep": {[]func(*scaledWorld){
			settled, sleeps, look,
			func(w *scaledWorld) { w.asks[0].Slice.Annotations[FailOpenAnnotation] = "true" },
		}, "after 1m0s"},
		"and closed again": {[]func(*scaledWorld){settled, past, look, func(w *scaledWorld) {
			w.asks[0] = asking("web",
				sentinel)
		}}, "after 1m0s"},
		"and a cool-down later": {[]func(*scaledWorld){settled, past, look, func(w *scaledWorld) {
			w.asks[0] = asking("web",
				sentinel)
		}, passes(time.Hour)}, "update web-deployment 0-2, after 1m0s"},
		"a slice of an earlier version": {[]func(*scaledWorld){func(w *scaledWorld) {
			delete(w.asks[0].Slice.Annotations,
				ScalingAnnotation)
		}}, ""},
		"scaled by somebody": {[]func(*scaledWorld){settled, func(w *scaledWorld) {
			w.workload.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "keda", Subresource: "scale"}}
		}}, "disown, after 1m0s"},
		"a ScaledObject of another version": {[]func(*scaledWorld){settled, func(w *scaledWorld) {
			w.workload.Annotations,
				w.so.Annotations = nil, nil
		}}, "remember 2, update web-deployment 0-2, after 1m0s"},
		"remembered by it alone": {
			[]func(*scaledWorld){settled, sleeps, func(w *scaledWorld) { w.workload.Annotations = nil }},
			"Asleep, remember 2, after 1m0s",
		},
		"somebody deletes it": {[]func(*scaledWorld){settled, finalized, deleted}, "soon"},
		"KEDA does not let it go": {
			[]func(*scaledWorld){settled, finalized, deleted, passes(kedaGrace)},
			"update web-deployment 0-2, soon",
		},
		"somebody changes it": {
			[]func(*scaledWorld){settled, func(w *scaledWorld) { w.so.Spec.MaxReplicaCount = new(int32(9)) }},
			"update web-deployment 0-2, ScaledObjectReset, after 1m0s",
		},
		"another Service retires beside it": {
			[]func(*scaledWorld){second, settled, retires},
			"update web-deployment 1-2, after 1m0s",
		},
		"another Service retires beside it, asleep": {
			[]func(*scaledWorld){second, settled, sleeps, look, retires},
			"update web-deployment 1-2, scale to 1, after 1m0s",
		},
		"two slices of one Service": {
			[]func(*scaledWorld){func(w *scaledWorld) { w.asks = append(w.asks, w.asks[0]) }},
			"remember 2, create web-deployment 0-2, after 1m0s",
		},
		"an alias whose Ingresses lead to it": {
			[]func(*scaledWorld){func(w *scaledWorld) { w.asks[0] = ofAlias(true) }},
			"remember 2, create web-deployment 0-2, after 1m0s",
		},
		"an alias whose Ingresses do not lead to it": {[]func(*scaledWorld){func(w *scaledWorld) { w.asks[0] = ofAlias(false) }}, ""},

		"retires":         {[]func(*scaledWorld){settled, retires}, "update web-deployment 2-2, delete web-deployment, soon"},
		"retires, asleep": {[]func(*scaledWorld){settled, sleeps, look, retires}, "update web-deployment 2-2, scale to 2, soon"},
		"nobody leads to it any more": {
			[]func(*scaledWorld){settled, sleeps, look, nobody}, "update web-deployment 2-2, scale to 2, Restored, soon",
		},
		"KEDA's HPA holds another": {
			[]func(*scaledWorld){settled, retires, func(w *scaledWorld) { w.hpa = HPAAnswer{true, 1, 2} }},
			"update web-deployment 2-2, soon",
		},
		"KEDA's HPA has had its time": {[]func(*scaledWorld){
			settled, retires, func(w *scaledWorld) { w.hpa = HPAAnswer{true, 1, 2} },
			look, passes(time.Minute),
		}, "delete web-deployment, soon"},
		"KEDA's HPA holds it": {[]func(*scaledWorld){
			settled, retires, func(w *scaledWorld) { w.hpa = HPAAnswer{true, 1, 2} },
			look, func(w *scaledWorld) { w.hpa = HPAAnswer{true, 2, 2} },
		}, "delete web-deployment, soon"},
		"KEDA takes its time":      {[]func(*scaledWorld){settled, retires, finalized, look}, "soon"},
		"the ScaledObject is gone": {[]func(*scaledWorld){settled, retires, look}, "remember 0, forget"},
		"restored":                 {[]func(*scaledWorld){settled, retires, look, look}, ""},
		"restored without KEDA":    {[]func(*scaledWorld){withoutKEDA, settled, sleeps, look, retires}, "scale to 2, soon"},
		"a ScaledObject without notes": {[]func(*scaledWorld){settled, retires, func(w *scaledWorld) {
			w.so.Annotations,
				w.so.Spec.MinReplicaCount = nil, nil
		}}, "update web-deployment 2-2, delete web-deployment, soon"},

		"idle, without KEDA, too early": {
			[]func(*scaledWorld){withoutKEDA, settled, func(w *scaledWorld) { w.count.Known = true }},
			"after 15s",
		},
		"idle, without KEDA, nearly": {[]func(*scaledWorld){
			withoutKEDA, settled, func(w *scaledWorld) { w.count.Known = true },
			passes(4*time.Minute + 50*time.Second),
		}, "after 10s"},
		"idle, without KEDA": {[]func(*scaledWorld){
			withoutKEDA, settled, func(w *scaledWorld) { w.count.Known = true },
			passes(time.Hour),
		}, "scale to 0, after 15s"},
		"nobody counts": {[]func(*scaledWorld){withoutKEDA, settled, passes(time.Hour)}, "after 15s"},
		"in use, without KEDA": {[]func(*scaledWorld){withoutKEDA, settled, func(w *scaledWorld) {
			w.count = CountAnswer{Known: true, Active: true, Pending: 150}
		}, passes(time.Hour)}, "after 15s"},
		"busy, without KEDA": {[]func(*scaledWorld){
			withoutKEDA, isReady, more(3), settled,
			func(w *scaledWorld) { w.count = CountAnswer{Known: true, Active: true, Pending: 250} },
		}, "scale to 3, after 15s"},
		"asleep, without KEDA": {[]func(*scaledWorld){withoutKEDA, settled, sleeps, look}, "after 1m0s"},
		"failed open, without KEDA": {[]func(*scaledWorld){
			withoutKEDA, settled,
			func(w *scaledWorld) { w.asks[0].Slice.Annotations[FailOpenAnnotation] = "true" }, passes(time.Hour),
		}, "after 15s"},
		"a start is given its time": {
			[]func(*scaledWorld){
				withoutKEDA, settled, sleeps, look, wakes, func(w *scaledWorld) { w.count.Known = true }, look, passes(9 * time.Minute),
			},
			`progress {"stage":"scheduling"}, after 5s`,
		},
		"a start that fails is given none": {
			[]func(*scaledWorld){
				withoutKEDA, settled, sleeps, look, wakes, func(w *scaledWorld) { w.count.Known = true }, failing, passes(time.Second), look,
				passes(time.Second), look, passes(6 * time.Minute),
			},
			`scale to 0, progress {"stage":"pulling","failing":"its image cannot be ` +
				`pulled","reason":"ImagePullBackOff","seen":"2026-08-01T12:06:02Z"}, after 5s`,
		},

		"falls asleep":  {[]func(*scaledWorld){settled, sleeps}, "Asleep, after 1m0s"},
		"wakes":         {[]func(*scaledWorld){settled, sleeps, look, wakes}, "after 500ms"},
		"wakes by hand": {[]func(*scaledWorld){settled, sleeps, look, wakes, byHand}, `disown, progress {"stage":"scheduling"}, after 500ms`},
		"wakes by hand, and KEDA takes it back": {[]func(*scaledWorld){
			settled, sleeps, look, wakes, nobodyAsked, look, passes(400 * time.Millisecond), sleeps,
		}, "scale to 1, after 1m0s"},
		"wakes by hand, and KEDA takes it back twice": {[]func(*scaledWorld){
			settled, sleeps, look, wakes, nobodyAsked, look, sleeps, look, wakes, look, passes(time.Second), sleeps,
		}, "Asleep, progress , after 1m0s"},
		"wakes by hand, and is put to sleep later": {[]func(*scaledWorld){
			settled, sleeps, look, wakes, nobodyAsked, look, passes(crossing + time.Second), sleeps,
		}, "Asleep, progress , after 1m0s"},
		"wakes by hand, is ready, and is put to sleep": {[]func(*scaledWorld){
			settled, sleeps, look, wakes, nobodyAsked, look, isReady, look, sleeps,
		}, "Asleep, after 1m0s"},
		"KEDA wakes it, and takes it back": {[]func(*scaledWorld){settled, sleeps, look, wakes, visited, look, sleeps}, "Asleep, after 1m0s"},
		"wakes, and nobody has asked": {
			[]func(*scaledWorld){settled, sleeps, look, wakes, nobodyAsked}, `progress {"stage":"scheduling"}, after 500ms`,
		},
		"wakes for a visitor": {[]func(*scaledWorld){settled, sleeps, look, wakes, visited}, "after 500ms"},
		"is starting": {
			[]func(*scaledWorld){settled, sleeps, look, wakes, look, passes(time.Second)}, `progress {"stage":"scheduling"}, after 1s`,
		},
		"is starting, as it is known": {[]func(*scaledWorld){
			settled, sleeps, look, wakes, look, passes(time.Second), look,
			passes(500 * time.Millisecond),
		}, "after 500ms"},
		"is ready": {
			[]func(*scaledWorld){settled, sleeps, look, wakes, look, passes(3 * time.Second), isReady},
			`Awake, progress {"starts":["3s"]}, after 1m0s`,
		},
		"is ready, says its pod": {
			[]func(*scaledWorld){settled, sleeps, look, wakes, look, passes(3 * time.Second), func(w *scaledWorld) { w.pods.Ready = true }},
			`progress {"starts":["3s"]}, after 10s`,
		},
		"takes requests before it is ready": {[]func(*scaledWorld){settled, sleeps, look, wakes, published}, "Awake, after 500ms"},
		"takes requests, and a look": {
			[]func(*scaledWorld){settled, sleeps, look, wakes, published, look, passes(time.Second)}, `progress {"starts":["1s"]}, after 10s`,
		},
		"cannot start": {
			[]func(*scaledWorld){settled, sleeps, look, wakes, look, passes(time.Second), failing},
			`progress {"stage":"pulling","failing":"its image cannot be pulled","reason":"ImagePullBackOff","seen":"2026-08-01T12:00:01Z"}, ` +
				`StartFailed, after 1s`,
		},
		"cannot start, as is known": {[]func(*scaledWorld){
			settled, sleeps, look, wakes, look, passes(time.Second), failing, look,
			passes(time.Second),
		}, "after 1s"},
		"could start at last": {[]func(*scaledWorld){
			settled, sleeps, look, wakes, look, passes(time.Second), failing, look,
			passes(time.Second), isReady,
		}, "Awake, progress , after 1m0s"},
		"is back from a crash": {
			[]func(*scaledWorld){settled, wakes, look, passes(time.Second), failing, look, isReady},
			"progress , Awake, after 1m0s",
		},
		"starts, and nobody waits": {[]func(*scaledWorld){settled, past, wakes}, "update web-deployment 1-2, after 1m0s"},

		"paused": {
			[]func(*scaledWorld){settled, paused(keda.PausedAnnotation, "true")},
			`progress {"paused":{"why":"ScaledObject web-deployment is paused (autoscaling.keda.sh/paused: \"true\")"}}, Paused, after 1m0s`,
		},
		"paused, again": {[]func(*scaledWorld){settled, paused(keda.PausedAnnotation, "true"), look}, "after 1m0s"},
		"paused, restart": {[]func(*scaledWorld){
			settled, paused(keda.PausedAnnotation, "true"), look,
			func(w *scaledWorld) { w.memory = WorkloadMemory{} },
		}, "after 1m0s"},
		"resumed": {
			[]func(*scaledWorld){settled, paused(keda.PausedAnnotation, "true"), look, resumed},
			"progress , Resumed, after 1m0s",
		},
		"resumed, asleep": {
			[]func(*scaledWorld){settled, sleeps, look, paused(keda.PausedAnnotation, "true"), look, resumed},
			"progress , Resumed, after 1m0s",
		},
		"resumed, restart": {[]func(*scaledWorld){
			settled, paused(keda.PausedAnnotation, "true"), look,
			func(w *scaledWorld) { w.memory = WorkloadMemory{} }, resumed,
		}, "progress , Resumed, after 1m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, tc.world...)
			if got := outline(w.plan()); got != tc.want {
				t.Errorf("\n got %s\nwant %s", got, tc.want)
			}
		})
	}
}

// ofAlias returns the route slice of an alias Service.
func ofAlias(rewritten bool) Asking {
	a := asking("web")
	a.Slice.Labels[discoveryv1.LabelServiceName] = "web-scale-to-zero"
	a.Rewritten = rewritten
	return a
}

func more(n int32) func(*scaledWorld) {
	return func(w *scaledWorld) {
		s := DefaultSettings()
		s.MaxReplicas = n
		w.asks[0].Slice.Annotations[ScalingAnnotation] = encodeScaling(s)
	}
}

func byHand(w *scaledWorld) {
	w.workload.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl", Subresource: "scale"}}
}

func published(w *scaledWorld) {
	w.asks[0].Service.Spec.PublishNotReadyAddresses, w.asks[0].PodsListed = true, true
}

func paused(key, value string) func(*scaledWorld) {
	return func(w *scaledWorld) { w.so.Annotations[key] = value }
}

func resumed(w *scaledWorld) { delete(w.so.Annotations, keda.PausedAnnotation) }

// TestWorkloadEnds tests that, after any sequence of events, a workload is scaled by the settings if a Service routes to it, and
// otherwise is restored with its former replica count.
func TestWorkloadEnds(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 3))
			w := newScaledWorld(t)
			wanted := true
			for range 40 {
				switch random.IntN(12) {
				case 0:
					w.asks, wanted = []Asking{asking("web", sentinel)}, true
				case 1:
					w.asks, wanted = []Asking{asking("web", sentinel)}, false
					retires(w)
				case 2:
					w.asks, wanted = nil, false
				case 3:
					sleeps(w)
				case 4:
					wakes(w)
				case 5:
					isReady(w)
				case 6:
					w.keda = random.IntN(4) > 0
				case 7:
					w.memory = WorkloadMemory{} // another controller takes over
				case 8:
					w.fails = true
				case 9:
					w.hpa = HPAAnswer{Exists: random.IntN(2) == 0, Min: 1, Max: 2}
				case 10:
					w.hpas, w.foreign = nil, nil
				case 11:
					w.hpas, w.foreign = nil, nil
					if random.IntN(2) == 0 {
						besideHPA(w)
					} else {
						besideTheirs(w)
					}
					wanted = true
				}
				if !w.keda {
					w.so, w.foreign = nil, nil // its API does not exist any more
				}
				w.now = w.now.Add(time.Duration(random.IntN(30)) * time.Second)
				w.reconcile()
			}
			w.keda, w.fails = true, false
			for range 20 {
				w.now = w.now.Add(time.Minute)
				w.workload.ReadyReplicas = w.workload.Replicas
				w.reconcile()
			}
			beside := len(w.hpas)+len(w.foreign) > 0
			for i := range w.foreign {
				if triggered := Triggered(&w.foreign[i]); triggered != wanted && (wanted || len(w.asks) == 0) {
					t.Fatalf("wanted %t, the trigger of %+v", wanted, w.foreign[i])
				}
			}
			switch {
			case wanted && beside && w.so == nil && Remembered(w.workload.Annotations) > 0 && w.workload.Annotations[AutoscalerAnnotation] != "":
			case wanted && (w.so == nil || Remembered(w.workload.Annotations) == 0 || w.so.Spec.Idle() != 0):
				t.Fatalf("not scaled: %+v, %v", w.so, w.workload.Annotations)
			case !wanted && (w.so != nil || Remembered(w.workload.Annotations) != 0):
				t.Fatalf("not restored: %+v, %d replicas, %v", w.so, w.workload.Replicas, w.workload.Annotations)
			}
			w.events = nil
			p := w.reconcile()
			if p.ScaledObject != nil || p.Scale != nil || p.Delete != nil || p.Remember != nil || len(p.Slices)+len(w.events) > 0 {
				t.Errorf("planning it again plans %s", outline(p))
			}
		})
	}
}

// atMost makes the Service allow at most n replicas.
func atMost(n int32) func(*scaledWorld) {
	return func(w *scaledWorld) {
		s := DefaultSettings()
		s.MaxReplicas = n
		w.asks[0].Slice.Annotations[ScalingAnnotation] = encodeScaling(s)
	}
}

// scaledTo lets somebody else scale the workload.
func scaledTo(n int32) func(*scaledWorld) { return func(w *scaledWorld) { w.workload.Replicas = n } }

// TestMoreReplicasAllowed tests that nothing is exceeded by more replicas than the default, or by a count from before the limit was
// lowered.
func TestMoreReplicasAllowed(t *testing.T) {
	for name, world := range map[string][]func(*scaledWorld){
		"no limit is set": {settled, scaledTo(5), look},
		"the limit falls": {atMost(5), settled, scaledTo(5), look, atMost(2), look},
	} {
		t.Run(name, func(t *testing.T) {
			if w := newScaledWorld(t, world...); len(w.events) > 0 {
				t.Errorf("events:\n%s", strings.Join(w.events, "\n"))
			}
		})
	}
}

// TestWorkloadEvents tests what the owner of an app reads.
func TestWorkloadEvents(t *testing.T) {
	for name, tc := range map[string]struct {
		world []func(*scaledWorld)
		want  string
	}{
		"asleep": {
			[]func(*scaledWorld){
				settled, passes(time.Hour), func(w *scaledWorld) { w.use = &Use{Idle: time.Hour, Counted: 2 * time.Hour} },
				sleeps, look,
			},
			"Asleep: Deployment/web has gone to zero replicas: no requests for 5m; the next one wakes it",
		},
		"asleep, and nobody can be asked": {
			[]func(*scaledWorld){settled, passes(time.Hour), sleeps, look},
			"Asleep: Deployment/web has gone to zero replicas. The next request wakes it",
		},
		"awake": {
			[]func(*scaledWorld){
				settled, sleeps, look, func(w *scaledWorld) { w.events = nil }, wakes, look, passes(3200 * time.Millisecond),
				isReady, look,
			},
			"Awake: Deployment/web is ready (1 of 1 replica), 3.2s after it was scaled up",
		},
		"awake before it is ready": {
			[]func(*scaledWorld){settled, sleeps, look, func(w *scaledWorld) { w.events = nil }, wakes, published, look},
			"Awake: Deployment/web takes requests before it is ready, as one of its Services asks (publishNotReadyAddresses), 0s after it " +
				"was scaled up",
		},
		"a pause of the scaling out": {
			[]func(*scaledWorld){settled, paused(keda.PausedScaleOutAnnotation, "true"), look},
			`Paused: ScaledObject web-deployment of Deployment/web is paused (autoscaling.keda.sh/paused-scale-out: "true"): ` +
				`scale-to-zero does not wake it. Requests get 503 while it has no replicas. Resume: ` +
				`kubectl annotate scaledobject -n apps web-deployment autoscaling.keda.sh/paused-scale-out-`,
		},
		"a pause at two replicas": {
			[]func(*scaledWorld){settled, paused(keda.PausedReplicasAnnotation, "2"), look},
			`Paused: ScaledObject web-deployment of Deployment/web is paused (autoscaling.keda.sh/paused-replicas: "2"): ` +
				`scale-to-zero does not put it to sleep. Resume: kubectl annotate scaledobject -n apps web-deployment ` +
				`autoscaling.keda.sh/paused-replicas-`,
		},
		"a change that is undone": {
			[]func(*scaledWorld){
				settled, func(w *scaledWorld) { w.so.Spec.Triggers = nil }, look,
				func(w *scaledWorld) { w.so.Spec.Triggers = nil }, look,
			},
			"ScaledObjectReset: scale-to-zero owns ScaledObject web-deployment and has undone a change of spec.triggers.",
		},
		"more replicas than allowed": {
			[]func(*scaledWorld){atMost(2), settled, scaledTo(5), look, scaledTo(2), look, scaledTo(5), look},
			"MaxReplicasExceeded: Deployment/web was scaled to 5 replicas, but annotation scale-to-zero/max-replicas allows 2: KEDA takes " +
				"the others away. Set the annotation to 5 to keep them",
		},
		"more replicas than allowed, without KEDA": {
			[]func(*scaledWorld){withoutKEDA, atMost(2), settled, scaledTo(3), look},
			"MaxReplicasExceeded: Deployment/web was scaled to 3 replicas, but annotation scale-to-zero/max-replicas allows 2: " +
				"scale-to-zero takes the others away. Set the annotation to 3 to keep them",
		},
		"a start that fails": {
			[]func(*scaledWorld){
				settled, sleeps, look, func(w *scaledWorld) { w.events = nil }, wakes, look, passes(time.Second),
				func(w *scaledWorld) {
					w.pods = Start{Failing: "its image cannot be pulled", Reason: "ImagePullBackOff", Advice: "Check it"}
				}, look, passes(time.Second), look,
			},
			"StartFailed: Deployment/web cannot start: its image cannot be pulled. Requests get 503 until it can. Check it",
		},
		"a pause that ends": {
			[]func(*scaledWorld){settled, paused(keda.PausedAnnotation, "true"), look, resumed, func(w *scaledWorld) { w.events = nil }, look},
			"Resumed: Deployment/web is no longer paused: it sleeps when nobody uses it",
		},
		"a pause that ends asleep": {
			[]func(*scaledWorld){
				settled, sleeps, look, paused(keda.PausedAnnotation, "true"), look, resumed,
				func(w *scaledWorld) { w.events = nil }, look,
			},
			"Resumed: Deployment/web is no longer paused: the next request wakes it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScaledWorld(t, tc.world...)
			if len(w.events) != 1 || !strings.HasPrefix(w.events[0], tc.want) {
				t.Errorf("events:\n%s\nwant\n%s", strings.Join(w.events, "\n"), tc.want)
			}
		})
	}
}

// TestStartIsKnownFromSlices tests that another controller continues where one stops.
func TestStartIsKnownFromSlices(t *testing.T) {
	w := newScaledWorld(t, settled, sleeps, look, wakes, look, passes(time.Second), func(w *scaledWorld) {
		w.pods = Start{Stage: api.StagePulling, Failing: "its image cannot be pulled", Reason: "ImagePullBackOff"}
		w.reconcile()
		w.memory = WorkloadMemory{}
		w.events = nil
	}, passes(time.Second), look, passes(time.Second), look)
	if len(w.events) > 0 || !w.memory.Followed || len(w.memory.Starting.Reported) != 1 {
		t.Errorf("events %q, %+v", w.events, w.memory.Starting)
	}
	w.asks[0].Slice.Annotations[api.ProgressAnnotation] = "{"
	w.memory = WorkloadMemory{}
	if got := outline(w.plan()); !strings.Contains(got, "progress") {
		t.Errorf("a progress that does not decode is left: %s", got)
	}
}

func TestObjects(t *testing.T) {
	w := newScaledWorld(t, func(w *scaledWorld) { w.asks = append(w.asks, asking("api", sentinel), asking("past")) })
	var names []string
	for _, o := range w.observe().Objects() {
		names = append(names, o.GetName())
	}
	if got := strings.Join(names, " "); got != "web web api" {
		t.Errorf("events go to %s", got)
	}
}
