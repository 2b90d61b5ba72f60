// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	// keptStarts is of how many starts the durations are kept.
	keptStarts = 5
	// firstLook is how long a start is left alone: looking at it costs the API server and the nodes some of the time that it
	// takes, and nobody is shown anything before the waiting page's grace, unless that is less than by default.
	firstLook = 500 * time.Millisecond
	// minLook is between two looks at one start at least, however often the workload's status changes.
	minLook = time.Second
	// renewal is how often a start that fails is written anew.
	renewal = api.FailingFor / 3
	// eventSlack is how much before its wake an event may seem to be: events have whole seconds of other clocks.
	eventSlack = 5 * time.Second
)

// start is what is known of the start that a workload is in, or of the last one.
type start struct {
	progress api.Progress // as it was written last
	asleep   bool
	left     time.Time // when it was seen to leave zero; zero if it was not seen, or is over
	waiting  time.Time // since when it has had replicas and none ready
	looked   time.Time // when its pods were listed last
	suspect  string    // the reason for which it seems to fail
	since    time.Time // of suspect
	told     []string  // the reasons that events have told
}

// progress tells those who wait how far the workload's start has come, by an annotation on its route slices, and tells its
// story when it cannot start. awoke says that its being awake has been told just now.
//
// Nobody watches pods: they are listed while the workload has had replicas and none of them ready for firstLook, the more
// rarely the longer that takes.
func (r *WorkloadReconciler) progress(ctx context.Context, w workload, d demand, p pause, awoke bool) (ctrl.Result, error) {
	now := r.Now()
	key := key(w.Namespace, w.Ref())
	s := r.startOf(key, d)
	before := s
	var result ctrl.Result
	var look injector.Start
	switch {
	case w.Replicas == 0:
		s = start{progress: api.Progress{Starts: s.progress.Starts}, asleep: true}
	case len(d.services) == 0: // nobody waits here
		s = start{progress: api.Progress{Starts: s.progress.Starts}}
	case w.ReadyReplicas > 0:
		s = s.over(now)
	default:
		s = s.begun(now)
		// Nobody waits for what was scaled up by hand, so that the interceptors know of it by this alone.
		if wait := s.untilLook(now); wait > 0 && (!s.looked.IsZero() || !injector.ScaledByHand(w.ManagedFields)) {
			result.RequeueAfter = wait
			break
		}
		s.looked = now
		var err error
		if look, err = r.look(ctx, w, d, s); err != nil {
			return ctrl.Result{}, err
		}
		if look.Ready || d.published && look.Failing == "" {
			s = s.over(now)
			s.told = before.told            // until its status says so too
			result.RequeueAfter = kindRetry // which it may never do
			break
		}
		s = s.next(look, now)
		result.RequeueAfter = min(max(now.Sub(s.waiting)/10, minLook), renewal/2)
	}
	s.progress.Paused = p.progress(w)
	if err := r.writeProgress(ctx, d.slices, s.progress); err != nil {
		return ctrl.Result{}, err
	}
	r.tellPause(ctx, w, d, p, before.progress.Paused)
	r.tellStart(ctx, w, d, &s, before, look.Advice, awoke)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starts[key] = s
	return result, nil
}

// startOf returns what is known of a workload's start, if need be from what another controller has written.
func (r *WorkloadReconciler) startOf(key types.NamespacedName, d demand) start {
	r.mu.Lock()
	s, known := r.starts[key]
	r.mu.Unlock()
	for i := 0; !known && i < len(d.slices); i++ {
		p, err := api.DecodeProgress(d.slices[i].Annotations[api.ProgressAnnotation])
		if err != nil {
			continue
		}
		s.progress, known = p, p.Stage != "" || p.Failing != "" || p.Paused != nil || len(p.Starts) > 0 // a Service that was added has none
		if p.Failing != "" {
			s.suspect, s.told = p.Reason, []string{p.Reason}
		}
	}
	return s
}

// over is the start's state once a pod is ready. Of how long a start has taken that somebody had to mend, nothing is to be
// learned for the next.
func (s start) over(now time.Time) start {
	starts := s.progress.Starts
	if took := now.Sub(s.left).Round(10 * time.Millisecond); !s.left.IsZero() && len(s.told) == 0 {
		starts = append([]api.Duration{api.Duration(took)}, starts[:min(len(starts), keptStarts-1)]...)
	}
	return start{progress: api.Progress{Starts: starts}}
}

// begun is the start's state when there are to be pods and none is ready.
func (s start) begun(now time.Time) start {
	if s.asleep {
		s.asleep, s.left = false, now
	}
	if s.waiting.IsZero() {
		s.waiting = now
	}
	return s
}

// untilLook is how long the pods are not looked at yet.
func (s start) untilLook(now time.Time) time.Duration {
	return max(s.waiting.Add(firstLook).Sub(now), s.looked.Add(minLook).Sub(now))
}

// next is the start's state after a look at pods none of which is ready.
func (s start) next(look injector.Start, now time.Time) start {
	if s.suspect != look.Reason {
		s.suspect, s.since = look.Reason, now
	}
	last := s.progress
	s.progress = api.Progress{Stage: cmp.Or(look.Stage, api.StageScheduling), Starts: last.Starts}
	certain := now.Sub(s.since) >= look.Doubt || last.Failing != "" && last.Reason == look.Reason
	if look.Failing == "" || !certain {
		return s
	}
	s.progress.Failing, s.progress.Reason, s.progress.Seen = look.Failing, look.Reason, last.Seen
	if last.Failing != look.Failing || now.Sub(last.Seen) >= renewal {
		s.progress.Seen = now.UTC().Truncate(time.Second)
	}
	return s
}

// look finds out how far the workload's pods are.
func (r *WorkloadReconciler) look(ctx context.Context, w workload, d demand, s start) (injector.Start, error) {
	selector, err := labels.Parse(w.Selector)
	if err != nil {
		return injector.Start{}, fmt.Errorf("reading the selector of %s: %w", w.Ref(), err)
	}
	if selector.Empty() {
		selector = labels.SelectorFromSet(injector.OriginalSelector(d.services[0]))
	}
	var pods corev1.PodList
	if err := r.live.List(ctx, &pods, client.InNamespace(w.Namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return injector.Start{}, fmt.Errorf("listing the pods of %s in namespace %s: %w", w.Ref(), w.Namespace, err)
	}
	look := injector.NewStart(w.Workload, pods.Items, r.Now())
	switch {
	case look.None && w.Refused != "":
		return injector.Refused(w.Refused), nil
	case look.None && w.Kind != "Deployment" && !s.waiting.IsZero():
		list, err := r.eventsOf(ctx, w.Namespace, string(w.UID), "FailedCreate")
		for _, e := range list {
			if !e.LastTimestamp.Time.Before(s.waiting.Add(-eventSlack)) {
				return injector.Refused(e.Message), nil
			}
		}
		return look, err
	case look.Reason == injector.ReasonUnschedulable:
		// A node is on its way: the one from the cluster autoscaler, the other from Karpenter.
		for _, reason := range []string{"TriggeredScaleUp", "Nominated"} {
			coming, err := r.eventsOf(ctx, w.Namespace, string(look.Pod.UID), reason)
			if err != nil || len(coming) > 0 {
				return injector.Start{Stage: look.Stage}, err
			}
		}
	}
	return look, nil
}

// eventsOf lists the events on an object for one reason.
func (r *WorkloadReconciler) eventsOf(ctx context.Context, namespace, uid, reason string) ([]corev1.Event, error) {
	var list corev1.EventList
	if err := r.live.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{"involvedObject.uid": uid, "reason": reason}); err != nil {
		return nil, fmt.Errorf("listing events %s in namespace %s: %w", reason, namespace, err)
	}
	return list.Items, nil
}

// writeProgress annotates the route slices that do not say so yet, as far as the cache knows.
func (r *WorkloadReconciler) writeProgress(ctx context.Context, routeSlices []*discoveryv1.EndpointSlice, p api.Progress) error {
	want, err := p.Encode()
	if err != nil {
		return err
	}
	value, err := json.Marshal(want)
	if err != nil {
		return fmt.Errorf("quoting progress: %w", err)
	}
	if want == "{}" {
		want, value = "", []byte("null")
	}
	for _, s := range routeSlices {
		if s.Annotations[api.ProgressAnnotation] == want {
			continue
		}
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, api.ProgressAnnotation, value))
		object := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
		if err := r.client.Patch(ctx, object, patch, client.FieldOwner(injector.ManagedBy)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("annotating route slice %s: %w", client.ObjectKeyFromObject(s), err)
		}
	}
	return nil
}

// tellStart tells why the workload cannot start, once for each reason, and that it can again where nothing else does.
func (r *WorkloadReconciler) tellStart(ctx context.Context, w workload, d demand, s *start, before start, advice string, awoke bool) {
	objects := d.objects(w)
	switch p := s.progress; {
	case p.Failing != "" && !slices.Contains(s.told, p.Reason):
		s.told = append(slices.Clone(s.told), p.Reason)
		r.stories.tell(ctx, corev1.EventTypeWarning, reasonStartFailed,
			fmt.Sprintf("%s cannot start: %s. Requests get 503 with this until it can. %s", w.Ref(), p.Failing, advice), objects...)
	case w.ReadyReplicas > 0 && len(before.told) > 0 && !awoke:
		r.stories.tell(ctx, corev1.EventTypeNormal, reasonAwake, fmt.Sprintf("%s is ready again (%d of %s)", w.Ref(), w.ReadyReplicas, replicasText(w.Replicas)), objects...)
	}
}
