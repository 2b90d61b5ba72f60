// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apilabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// Whoever may write a Service need not be allowed to scale anything. So a workload that a Service names has to be the one whose pods
// the Service selects. Otherwise it would also sleep forever: requests to the Service would reach other pods, and never wake it.

// Selects reports whether the Service selects the workload's pods, according to the labels in its pod template, or those that its
// scale subresource demands of its pods.
func Selects(service *corev1.Service, w Workload) bool {
	selector := OriginalSelector(service)
	demanded := Workload{PodLabels: demandedLabels(w.Selector)}
	return w.matches(selector) || w.Template == nil && demanded.matches(selector)
}

// demandedLabels returns the labels that every pod has which a selector in the format of the scale subresource selects.
func demandedLabels(selector string) map[string]string {
	parsed, err := apilabels.Parse(selector)
	if err != nil {
		return nil
	}
	requirements, _ := parsed.Requirements()
	demanded := map[string]string{}
	for _, r := range requirements {
		equal := []selection.Operator{selection.Equals, selection.DoubleEquals, selection.In}
		if values := r.Values(); len(values) == 1 && slices.Contains(equal, r.Operator()) {
			demanded[r.Key()] = values.UnsortedList()[0]
		}
	}
	return demanded
}

// RoutesTo reports whether the Service's route slices send its requests to the workload: it has been proven before that the Service
// selects the workload's pods. While the workload sleeps, it has no pod to prove it with.
func (o *Observation) RoutesTo(w Workload) bool {
	self, alias := o.fronts()
	for _, f := range []Front{self, alias} {
		if kept := f.Routes.Workload; kept.UID != "" && kept.UID == string(w.UID) && kept.String() == w.Ref().String() {
			return true
		}
	}
	return false
}

// otherPods says why a workload that the Service names is not the one behind it; empty if it is.
func (o *Observation) otherPods(t *Target) Skip {
	if Selects(o.Service, t.Workload) || t.Workload.Template == nil && (t.Owns || o.RoutesTo(t.Workload)) {
		return ""
	}
	skip := selectsOthers(o.Service, t.Workload)
	if t.Workload.Template == nil {
		skip += ". If they are its pods, it is injected once one of them is there, with the owner " + Skip(t.Workload.Ref().String())
	}
	return skip
}

func selectsOthers(service *corev1.Service, w Workload) Skip {
	return Skip(fmt.Sprintf("annotation %sworkload names %s, whose pods its selector %s does not match: requests would not wake it. "+
		"Name the workload of the pods that it selects, or remove the annotation", Prefix, w.Ref(), selectorText(OriginalSelector(service))))
}
