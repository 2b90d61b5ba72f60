// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// eventSlack is how long before its wake an event may seem to be: events have whole seconds, from other clocks.
const eventSlack = 5 * time.Second

// workloadObserver finds out what a plan for a workload depends on.
//
// +kubebuilder:rbac:groups="",resources=pods;events,verbs=list
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=list;watch
// +kubebuilder:rbac:groups=autoscaling,resources=horizontalpodautoscalers,verbs=list;watch
// +kubebuilder:rbac:groups=keda.sh,resources=scaledobjects,verbs=list;watch
type workloadObserver struct {
	Options

	client    client.Reader
	live      client.Reader // for what the cache omits: pods, events and complete managed fields
	workloads *workloadClient
	keda      *kedaState
	learned   *learned
}

// plan observes a workload until a plan can be made.
func (b *workloadObserver) plan(ctx context.Context, w injector.Target, m injector.WorkloadMemory) (injector.WorkloadObservation,
	injector.WorkloadPlan, error,
) {
	o := injector.WorkloadObservation{
		Now: b.Now(), Workload: w.Workload, Object: w.Object, Memory: m,
		Install: injector.Install{
			Namespace: b.Namespace, StartupCPU: b.StartupCPU,
		},
	}
	b.keda.describe(&o.Install)
	o.Calls, o.Early = b.learned.of(key(w.Workload.Namespace, w.Workload.Ref()))
	var err error
	if o.Asks, err = b.asks(ctx, w.Workload); err != nil {
		return o, injector.WorkloadPlan{}, err
	}
	if o.HPAs, o.ScaledObjects, err = scalersOf(ctx, b.client, w.Workload, b.keda.installed()); err != nil {
		return o, injector.WorkloadPlan{}, err
	}
	o.ScaledObject = ownScaledObject(o.ScaledObjects, w.Workload)
	plan, question := injector.PlanWorkload(o)
	for question != injector.NoWorkloadQuestion {
		if err := b.answer(ctx, &o, question, plan.Memory.Starting); err != nil {
			return o, injector.WorkloadPlan{}, err
		}
		plan, question = injector.PlanWorkload(o)
	}
	return o, plan, nil
}

// asks collects what the route slices ask of a workload.
func (b *workloadObserver) asks(ctx context.Context, w injector.Workload) ([]injector.Asking, error) {
	list, err := slicesRoutedTo(ctx, b.client, w.Namespace, w.Ref().String())
	if err != nil {
		return nil, err
	}
	var asks []injector.Asking
	for i := range list {
		s := &list[i]
		routes, ok := routesOf(s)
		if !ok {
			continue
		}
		a := injector.Asking{Slice: s, Routes: routes, Service: &corev1.Service{}}
		name := types.NamespacedName{Namespace: w.Namespace, Name: routes.Service}
		err := b.client.Get(ctx, name, a.Service)
		switch {
		case apierrors.IsNotFound(err) || err == nil && !ownedBy(s, a.Service.UID):
			continue // the slice is about to be deleted too
		case err != nil:
			return nil, fmt.Errorf("getting service %s: %w", name, err)
		}
		if s.Labels[discoveryv1.LabelServiceName] != name.Name {
			ingresses, err := ingressesTo(ctx, b.client, name.Namespace, name.Name)
			if err != nil {
				return nil, err
			}
			a.Rewritten = injector.Rewritten(injector.OptedInIngresses(ingresses, name.Name), name.Name)
		}
		if a.Service.Spec.PublishNotReadyAddresses {
			direct, err := slicesOf(ctx, b.client, name, api.RoleDirect)
			if err != nil {
				return nil, err
			}
			a.PodsListed = injector.HasReadyEndpoint(injector.OnlyPods(direct, nil))
		}
		asks = append(asks, a)
	}
	return asks, nil
}

// ownScaledObject returns our ScaledObject for the workload, or nil.
func ownScaledObject(all []keda.ScaledObject, w injector.Workload) *keda.ScaledObject {
	for i := range all {
		if so := &all[i]; injector.OwnScaledObject(so, w) {
			return so
		}
	}
	return nil
}

// answer finds out what the planner asks.
func (b *workloadObserver) answer(ctx context.Context, o *injector.WorkloadObservation, q injector.WorkloadQuestion,
	s injector.Starting,
) error {
	w := o.Workload
	switch q {
	case injector.AskUse:
		o.Answers.Use = &injector.UseAnswer{}
		if use, err := b.Counts.Use(ctx, w.Namespace, w.Ref()); err == nil {
			o.Answers.Use.Use = &use
		} else {
			log.FromContext(ctx).Info("The interceptors do not say when an app was last used", "error", err.Error())
		}
	case injector.AskCount:
		count, err := b.Counts.Count(ctx, w.Namespace, w.Ref())
		if err != nil {
			log.FromContext(ctx).Info("Leaving a workload as it is: the interceptors cannot be asked", "error", err.Error())
		}
		o.Answers.Count = &count
	case injector.AskHPA:
		return b.hpa(ctx, o)
	case injector.AskPods:
		start, err := b.startOf(ctx, o, s)
		o.Answers.Pods = &start
		return err
	case injector.AskPodList:
		_, err := b.pods(ctx, o)
		return err
	case injector.AskMarkedPods:
		pods, err := markedPods(ctx, b.live, w.Namespace, w.Ref().String())
		o.Answers.Marked = &injector.PodsAnswer{Pods: pods}
		return err
	case injector.NoWorkloadQuestion:
	}
	return nil
}

// hpa reads the HPA that KEDA made.
func (b *workloadObserver) hpa(ctx context.Context, o *injector.WorkloadObservation) error {
	o.Answers.HPA = &injector.HPAAnswer{}
	name := types.NamespacedName{Namespace: o.Workload.Namespace, Name: "keda-hpa-" + o.ScaledObject.Name}
	var hpa autoscalingv2.HorizontalPodAutoscaler
	if err := b.client.Get(ctx, name, &hpa); apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("getting KEDA's horizontalpodautoscaler %s: %w", name, err)
	}
	*o.Answers.HPA = injector.HPAAnswer{Exists: true, Max: hpa.Spec.MaxReplicas}
	if hpa.Spec.MinReplicas != nil {
		o.Answers.HPA.Min = *hpa.Spec.MinReplicas
	}
	return nil
}

// pods lists the pods that the workload's selector selects, once for each plan.
func (b *workloadObserver) pods(ctx context.Context, o *injector.WorkloadObservation) ([]corev1.Pod, error) {
	if o.Answers.Listed != nil {
		return o.Answers.Listed.Pods, nil
	}
	w := o.Workload
	selector, err := labels.Parse(w.Selector)
	if err != nil {
		return nil, fmt.Errorf("reading the selector of %s: %w", w.Ref(), err)
	}
	if selector.Empty() {
		selector = labels.SelectorFromSet(injector.OriginalSelector(o.Asks[0].Service))
	}
	var list corev1.PodList
	if err := b.live.List(ctx, &list, client.InNamespace(w.Namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("listing the pods of %s in namespace %s: %w", w.Ref(), w.Namespace, err)
	}
	o.Answers.Listed = &injector.PodsAnswer{Pods: list.Items}
	return list.Items, nil
}

// startOf observes how far the workload's pods have come.
func (b *workloadObserver) startOf(ctx context.Context, o *injector.WorkloadObservation, s injector.Starting) (injector.Start, error) {
	w := o.Workload
	pods, err := b.pods(ctx, o)
	if err != nil {
		return injector.Start{}, err
	}
	start := injector.NewStart(w, pods, o.Now)
	switch {
	case start.Ready && start.Stages.MayHavePulled():
		list, err := b.eventsOf(ctx, w.Namespace, string(start.Pod.UID), "Pulled")
		if err != nil { // they only make an event complete
			log.FromContext(ctx).Info("Not saying how long the images took to pull", "error", err.Error())
		}
		for _, e := range list {
			start.Stages.Pulled += injector.PullTime(e.Message)
		}
	case start.None && w.Refused != "":
		return injector.Refused(w.Refused), nil
	case start.None && w.Kind != "Deployment" && !s.Waiting.IsZero():
		list, err := b.eventsOf(ctx, w.Namespace, string(w.UID), "FailedCreate")
		for _, e := range list {
			if !e.LastTimestamp.Time.Before(s.Waiting.Add(-eventSlack)) {
				return injector.Refused(e.Message), nil
			}
		}
		return start, err
	case start.Reason == injector.ReasonUnschedulable:
		// These events say that a node is coming. The first is the cluster autoscaler's, the second Karpenter's.
		for _, reason := range []string{"TriggeredScaleUp", "Nominated"} {
			coming, err := b.eventsOf(ctx, w.Namespace, string(start.Pod.UID), reason)
			if err != nil || len(coming) > 0 {
				return injector.Start{Stage: start.Stage}, err
			}
		}
	}
	return start, nil
}

// eventsOf lists the events on an object that have the reason.
func (b *workloadObserver) eventsOf(ctx context.Context, namespace, uid, reason string) ([]corev1.Event, error) {
	var list corev1.EventList
	if err := b.live.List(ctx, &list, client.InNamespace(namespace), client.MatchingFields{
		"involvedObject.uid": uid,
		"reason":             reason,
	}); err != nil {
		return nil, fmt.Errorf("listing events %s in namespace %s: %w", reason, namespace, err)
	}
	return list.Items, nil
}
