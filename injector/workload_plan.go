// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

const (
	// kedaGrace is how long a restoration waits for KEDA to react before it continues without KEDA, which may be down.
	kedaGrace = 10 * time.Second
	// countInterval is the longest pause between two questions about counts that may soon change the replica count. An HPA has the same
	// interval.
	countInterval = 15 * time.Second
	// kedaGone is the pause before another look at a workload that KEDA may scale, should nothing else cause one.
	kedaGone = time.Minute
)

// WorkloadPlan is what to do for one workload, in the order of the fields. A failure ends the plan: later steps are skipped, nothing
// more is reported, and of Memory only Life, CPU and Learning change.
//
// Beside an autoscaler of the workload's owner there is no ScaledObject of ours; see Autoscaler. Otherwise:
//
//	its Services               ScaledObject  plan
//	-------------------------  ------------  ------------------------------------------------------------------------
//	one is redirected          –             remember the replica count; keep the ScaledObject, or scale by the counts
//	one retires beside it      –             the same, and keep it awake, waking it if need be
//	none is redirected yet     –             keep it awake; scale it only if a replica count is remembered from before
//	all retire, or none is     not restored  restore: have KEDA hold the old replica count
//	left                       holds too few restore: scale to the old replica count
//	                           holds it      restore: delete it when KEDA's HPA holds the count too, or has had enough time
//	                           none          restored: forget the replica count
type WorkloadPlan struct {
	// Resizes are tried first. None of them ends the plan: what becomes of each is noted by Resized.
	Resizes []PodResize
	// Disown removes the ownership of spec.replicas from the field managers that scaled the workload.
	Disown bool
	// Story is emitted and Life kept even if a later step fails.
	Story []Report
	Life  Life
	// Remember is the replica count to write to ReplicasAnnotation. 0 removes the annotation, and nil leaves it.
	Remember *int32
	// Autoscaler is the value to write to AutoscalerAnnotation. Empty removes the annotation, and nil leaves it.
	Autoscaler *string
	// ScaledObject is written, and Delete is deleted. Trigger annotates the ScaledObject of somebody else.
	ScaledObject *ScaledObjectWrite
	Trigger      *AnnotationWrite
	Scale        *int32
	Delete       *keda.ScaledObject
	// Progress is written to ProgressAnnotation of Slices, and Learned to LearnedAnnotation. If one is empty, the annotation is removed.
	Progress, Learned string
	Slices            []*discoveryv1.EndpointSlice
	// Forget is set if nothing has to be remembered any more.
	Forget  bool
	Reports []Report
	Memory  WorkloadMemory
	// Soon and After are as in Outcome.
	Soon  bool
	After time.Duration
}

// ScaledObjectWrite creates To, or patches From to it.
type ScaledObjectWrite struct{ From, To *keda.ScaledObject }

// PlanWorkload plans what to do for a workload. If it returns a question, the plan cannot be made before the question is answered.
func PlanWorkload(o WorkloadObservation) (WorkloadPlan, WorkloadQuestion) {
	p := &workloadPlanner{o: &o, d: newDemand(o.Asks)}
	p.auto, p.aside = FindAutoscaler(o.Workload, o.HPAs, o.ScaledObjects)
	p.aside = o.Install.judge(p.auto, p.aside)
	p.pause = p.paused()
	p.Memory, p.Life = o.Memory, o.Memory.Life
	if p.d.unknown {
		return p.WorkloadPlan, NoWorkloadQuestion
	}
	triggered := p.auto.ScaledObject != nil && Triggered(p.auto.ScaledObject)
	if p.d.none() && o.ScaledObject == nil && !triggered && Remembered(o.Workload.Annotations) == 0 {
		q := cpuPlanner{p}.plan()
		p.Forget = !p.Memory.CPU.Marked
		return p.WorkloadPlan, q
	}
	p.Disown = slices.ContainsFunc(o.Workload.ManagedFields, ByScale)
	for _, step := range p.steps() {
		if q := step(); q != NoWorkloadQuestion {
			return WorkloadPlan{Memory: p.Memory}, q
		}
	}
	p.Memory.Life = p.Life
	p.Forget = p.Forget && !p.Memory.CPU.Marked
	return p.WorkloadPlan, NoWorkloadQuestion
}

// ByScale reports whether an entry of managed fields was written through the scale subresource.
func ByScale(m metav1.ManagedFieldsEntry) bool { return m.Subresource == "scale" }

// workloadPlanner makes a WorkloadPlan.
type workloadPlanner struct {
	WorkloadPlan

	o     *WorkloadObservation
	d     demand
	pause pause
	// auto is what somebody else has set up to scale the workload. aside is why we keep our hands off the workload because of that.
	auto  Autoscaler
	aside Skip
	// again is the replica count that somebody asked for a moment ago, and that KEDA has taken back; 0 is none.
	again int32
}

func (p *workloadPlanner) steps() []func() WorkloadQuestion {
	if len(p.d.services) == 0 && (p.d.retiring || !p.d.unsafe) {
		if p.d.retiring { // requests may be held for it
			return []func() WorkloadQuestion{p.restore, follower{p}.follow, p.write, cpuPlanner{p}.plan}
		}
		return []func() WorkloadQuestion{p.restore, cpuPlanner{p}.plan}
	}
	return []func() WorkloadQuestion{
		storyteller{p}.live, learner{p}.learn, p.apply, windowWatch{p}.watch, follower{p}.follow, p.write, cpuPlanner{p}.plan,
	}
}

// objects returns the objects on which the workload's events are emitted.
func (p *workloadPlanner) objects(also ...Object) []Object { return p.d.objects(p.o.Object, also...) }

func (p *workloadPlanner) report(eventType, reason, note string, also ...Object) {
	p.Reports = append(p.Reports, Report{Type: eventType, Reason: reason, Note: note, Objects: p.objects(also...)})
}

func (p *workloadPlanner) tell(reason, note string) {
	p.Story = append(p.Story, Report{Type: corev1.EventTypeNormal, Reason: reason, Note: note, Objects: p.objects()})
}

// after asks for a look in d, unless an earlier one is planned.
func (p *WorkloadPlan) after(d time.Duration) {
	if d > 0 && (p.After == 0 || d < p.After) {
		p.After = d
	}
}

// serves reports whether the workload's pods take requests: one is ready, or a Service publishes them before they are.
func (p *workloadPlanner) serves() bool { return p.o.Workload.ReadyReplicas > 0 || p.d.published }

// early is when the workload took requests in its present wake before Kubernetes called a pod ready; zero if it did not.
func (p *workloadPlanner) early() time.Time {
	if p.o.Early.Before(p.Life.Woken) {
		return time.Time{}
	}
	return p.o.Early
}

// apply makes sure that the workload is scaled: by KEDA through a ScaledObject, by ourselves if there is no KEDA, or beside what its
// owner has set up. It begins only once all traffic goes through the interceptors. Earlier, an app might be put to sleep while it
// serves requests that nobody counts.
func (p *workloadPlanner) apply() WorkloadQuestion {
	o, d, w, so := p.o, p.d, p.o.Workload, p.o.ScaledObject
	remembered := rememberedCount(w, so)
	if remembered == 0 && (d.unsafe || len(d.services) == 0) {
		return NoWorkloadQuestion
	}
	if so != nil && !so.DeletionTimestamp.IsZero() {
		p.release() // if it is still wanted, it is created again afterwards
		return NoWorkloadQuestion
	}
	autoscaled{p}.changeHands(&remembered)
	if !p.auto.none() || p.aside != "" {
		return autoscaled{p}.scale(remembered)
	}
	var limit int32
	limit, p.Life = p.Life.Limit(w.Replicas, NewScaling(d.settings, remembered), so)
	remembered = Remember(remembered, w.Replicas, limit)
	scaling := NewScaling(d.settings, remembered)
	if w.Replicas > limit && w.Replicas > scaling.MaxReplicas {
		p.exceed(scaling.MaxReplicas)
	}
	scaling = p.keptUp(scaling, so)
	p.remember(remembered)
	switch {
	case o.Install.KEDA:
		p.keep(ScaledObject(w, scaling, remembered, o.Install.Scaler))
	case so != nil:
		p.Delete = so // KEDA cannot ask the interceptors, and would only keep the workload as it is
	}
	if p.again > 0 {
		p.Scale = &p.again
		return NoWorkloadQuestion
	}
	if p.force() {
		return NoWorkloadQuestion
	}
	return p.scaleByCounts(scaling)
}

// keptUp returns the scaling with the demands that keep the workload up, which so is to say if it is KEDA that scales.
func (p *workloadPlanner) keptUp(s Scaling, so *keda.ScaledObject) Scaling {
	d, w := p.d, p.o.Workload
	var keptUp time.Duration
	keptUp, p.Life = p.Life.KeptUp(p.o.Now, s, so, d.unsafe || d.failOpen)
	p.after(kedaGone)
	p.after(keptUp)
	switch {
	case d.unsafe || d.retiring:
		return s.keptUp()
	case d.asleep != "":
		s.MinReplicas = 0
	case keptUp > 0 && w.Replicas > 0, d.keepsAwake(p.o.Now):
		return s.keptUp()
	}
	return s
}

// force scales the workload up or down where nobody's requests decide, and reports whether nothing more is to be done.
func (p *workloadPlanner) force() bool {
	d, w := p.d, p.o.Workload
	switch {
	case d.retiring && w.Replicas == 0:
		// Requests held for the Service that is being restored wake nobody, and KEDA may be down.
		p.Scale = new(p.wakeCount())
	case d.staysAsleep():
		if w.Replicas > 0 {
			p.Scale = new(int32(0))
		}
	case d.keepsAwake(p.o.Now) && w.Replicas == 0 && !p.pause.noWake():
		p.Scale = new(p.wakeCount())
	default:
		return false
	}
	return true
}

// remember plans to write the replica count that the workload gets back, if it is not written yet.
func (p *workloadPlanner) remember(n int32) {
	if Remembered(p.o.Workload.Annotations) != n {
		p.Remember = &n
	}
}

// remembered returns the replica count that the workload gets back, once the plan is carried out; 0 if none is known.
func (p *workloadPlanner) remembered() int32 {
	if p.Remember != nil {
		return *p.Remember
	}
	return Remembered(p.o.Workload.Annotations)
}

// wakeCount returns how many replicas the workload wakes with.
func (p *workloadPlanner) wakeCount() int32 {
	wake := NewScaling(p.d.settings, p.remembered()).WakeReplicas
	switch {
	case p.auto.ScaledObject != nil:
		return p.auto.ScaledObject.Spec.Woken()
	case p.auto.HPA == nil:
		return wake
	}
	if !slices.ContainsFunc(p.d.settings, func(s Settings) bool { return s.WakeReplicas > 0 }) {
		wake = p.remembered() // max-replicas has no effect
	}
	return p.auto.within(wake)
}

// exceed reports that somebody has scaled the workload beyond max-replicas. It reports the same count only once, because a deployment
// tool sets it at each sync.
func (p *workloadPlanner) exceed(limit int32) {
	until := "KEDA takes the others away"
	if !p.o.Install.KEDA {
		until = "scale-to-zero takes the others away"
	}
	note := fmt.Sprintf("%s was scaled to %s, but annotation %smax-replicas allows %d: %s. Set the annotation to %d to keep them",
		p.o.Workload.Ref(), replicasText(p.o.Workload.Replicas), Prefix, limit, until, p.o.Workload.Replicas)
	if note != p.Memory.Exceeded {
		p.Memory.Exceeded = note
		p.report(corev1.EventTypeWarning, ReasonExceeded, note)
	}
}

// rememberedCount returns the replica count to restore; 0 if none is known yet.
func rememberedCount(w Workload, so *keda.ScaledObject) int32 {
	n := Remembered(w.Annotations)
	if n == 0 && so != nil {
		n = Remembered(so.Annotations) // an earlier version, or a replace, may have left it only there
	}
	return n
}

// keep brings the ScaledObject into its desired state. It reports changes by others that it undoes. It reports the same change only
// once, because a deployment tool makes it at each sync.
func (p *workloadPlanner) keep(want *keda.ScaledObject) {
	so := p.o.ScaledObject
	if so == nil {
		p.ScaledObject, p.Memory.Written = &ScaledObjectWrite{To: want}, &want.Spec
		return
	}
	want.Spec.Advanced = so.Spec.Advanced // it is the user's
	if equality.Semantic.DeepEqual(so.Spec, want.Spec) && equality.Semantic.DeepEqual(so.OwnerReferences, want.OwnerReferences) &&
		so.Annotations[ReplicasAnnotation] == want.Annotations[ReplicasAnnotation] {
		p.Memory.Written = &so.Spec
		return
	}
	updated := so.DeepCopy()
	updated.Spec, updated.OwnerReferences = want.Spec, want.OwnerReferences
	if updated.Annotations == nil {
		updated.Annotations = map[string]string{}
	}
	updated.Annotations[ReplicasAnnotation] = want.Annotations[ReplicasAnnotation]
	delete(updated.Annotations, SinceAnnotation)
	before := p.Memory.Written
	p.patch(so, updated)
	if before == nil {
		return
	}
	// If the write succeeds, so is the current version. If it fails, so may be an older version that we wrote ourselves.
	if changed := ChangedFields(*before, so.Spec); len(changed) > 0 {
		if note := UndoneNote(so.Name, changed); note != p.Memory.Undone {
			p.Memory.Undone = note
			p.report(corev1.EventTypeWarning, ReasonUndone, note, so)
		}
	}
}

func (p *workloadPlanner) patch(from, to *keda.ScaledObject) {
	p.ScaledObject, p.Memory.Written = &ScaledObjectWrite{From: from, To: to}, &to.Spec
}

// scaleByCounts puts an idle workload to sleep. If neither KEDA nor an HPA gives a busy one more replicas, it does that too, up to the
// limit. Beside an HPA it wakes the workload. Otherwise the interceptors do, through KEDA or by themselves. As long as the counts are
// unknown, nothing changes.
func (p *workloadPlanner) scaleByCounts(s Scaling) WorkloadQuestion {
	o, w := p.o, p.o.Workload
	hpa := p.auto.HPA != nil
	counted := !hpa && !o.Install.KEDA
	up := p.Life.Up(o.Now, p.d.hold, o.Memory.Starting.Progress.Failing != "")
	if p.settledWithoutCounts(s, counted, up) {
		return NoWorkloadQuestion
	}
	if o.Answers.Count == nil {
		return AskCount
	}
	count := *o.Answers.Count
	p.after(s.nextCount(count, counted))
	if !count.Known {
		return NoWorkloadQuestion
	}
	n := Desired(s, count)
	switch {
	case counted:
		n, p.Life = p.Life.Scaled(o.Now, s, count, w.Replicas)
	case n > 0 && w.Replicas > 0:
		return NoWorkloadQuestion // the HPA, the owner's or KEDA's, decides how many
	case n > 0:
		n = p.wakeCount()
	}
	switch {
	case n < w.Replicas && up < s.Cooldown:
		// It has had no time for visits yet: a moment ago it was injected, or somebody scaled it.
		p.after(s.Cooldown - up)
	case n == 0 && p.pause.NoSleep:
	case n != w.Replicas:
		p.Scale = &n
		if hpa && n == 0 {
			p.remember(w.Replicas) // it wakes with as many
		}
	}
	return NoWorkloadQuestion
}

// settledWithoutCounts reports whether no counts change the replica count now. Then it asks for a look when they may. counted is set if
// they also decide how many replicas there are, and up is how long the workload has been ready for visitors.
func (p *workloadPlanner) settledWithoutCounts(s Scaling, counted bool, up time.Duration) bool {
	replicas, hpa := p.o.Workload.Replicas, p.auto.HPA != nil
	switch {
	case replicas == 0 && s.MinReplicas == 0:
	case !counted && s.MinReplicas > 0 && (!hpa || replicas > 0): // KEDA, or the HPA, keeps it up
	case p.d.failOpen:
		p.after(s.countInterval())
	case !counted && up < s.Cooldown:
		p.after(s.Cooldown - up)
	default:
		return false
	}
	return true
}

// nextCount is the pause before the next question about the counts. counted is set if they also decide how many replicas there are.
func (s Scaling) nextCount(count CountAnswer, counted bool) time.Duration {
	switch {
	case !count.Known, !count.Active, counted && s.MaxReplicas > 1:
		return s.countInterval()
	}
	return max(s.Cooldown-count.Idle, s.countInterval())
}

func (s Scaling) countInterval() time.Duration {
	return min(max(s.Cooldown/4, time.Second), countInterval)
}
