// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package keda

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// served is a ScaledObject of ours as the API server returns it, with what KEDA adds to it.
const served = `{
	"apiVersion": "keda.sh/v1alpha1",
	"kind": "ScaledObject",
	"metadata": {
		"name": "web-deployment", "namespace": "shop", "resourceVersion": "7", "finalizers": ["finalizer.keda.sh"],
		"annotations": {"scale-to-zero/replicas": "2"}, "labels": {"scaledobject.keda.sh/name": "web-deployment"}
	},
	"spec": {
		"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
		"pollingInterval": 30, "cooldownPeriod": 32, "initialCooldownPeriod": 0, "minReplicaCount": 0, "maxReplicaCount": 2,
		"idleReplicaCount": 0,
		"advanced": {"restoreToOriginalReplicaCount": false, "scalingModifiers": {"formula": "requests + 1", "target": "2"}},
		"triggers": [
			{"type": "external-push", "name": "requests", "metricType": "AverageValue", "metadata": {"scalerAddress": "interceptors:9090"},
				"authenticationRef": {"name": "scale-to-zero", "kind": "ClusterTriggerAuthentication"}},
			{"type": "cron", "metadata": {"timezone": "Europe/Berlin", "start": "0 8 * * *"}}
		]
	},
	"status": {"hpaName": "keda-hpa-web-deployment"}
}`

func decoded(t *testing.T) *ScaledObject {
	t.Helper()
	so := &ScaledObject{}
	if err := json.Unmarshal([]byte(served), so); err != nil {
		t.Fatal(err)
	}
	return so
}

// TestAsServed tests that the fields have KEDA's names: one that is misspelled would be read as unset.
func TestAsServed(t *testing.T) {
	want := &ScaledObject{
		TypeMeta: metav1.TypeMeta{APIVersion: "keda.sh/v1alpha1", Kind: "ScaledObject"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-deployment", Namespace: "shop", ResourceVersion: "7", Finalizers: []string{Finalizer},
			Annotations: map[string]string{"scale-to-zero/replicas": "2"}, Labels: map[string]string{"scaledobject.keda.sh/name": "web-deployment"},
		},
		Spec: ScaledObjectSpec{
			ScaleTargetRef:  ScaleTarget{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			PollingInterval: new(int32(30)), CooldownPeriod: new(int32(32)), InitialCooldownPeriod: new(int32(0)),
			IdleReplicaCount: new(int32(0)), MinReplicaCount: new(int32(0)), MaxReplicaCount: new(int32(2)),
			Advanced: &Advanced{ScalingModifiers: &ScalingModifiers{Formula: "requests + 1"}},
			Triggers: []Trigger{
				{
					Type: "external-push", Name: "requests", MetricType: "AverageValue",
					Metadata:          map[string]string{"scalerAddress": "interceptors:9090"},
					AuthenticationRef: &AuthenticationRef{Name: "scale-to-zero", Kind: "ClusterTriggerAuthentication"},
				},
				{Type: "cron", Metadata: map[string]string{"timezone": "Europe/Berlin", "start": "0 8 * * *"}},
			},
		},
	}
	if diff := cmp.Diff(want, decoded(t)); diff != "" {
		t.Error(diff)
	}
}

// TestUnsetIsOmitted tests that a field that is not set is not written: KEDA's webhook refuses a null, and its default is another one
// than 0.
func TestUnsetIsOmitted(t *testing.T) {
	for name, tc := range map[string]struct {
		spec ScaledObjectSpec
		want string
	}{
		"the target alone": {
			ScaledObjectSpec{ScaleTargetRef: ScaleTarget{Name: "web"}, Triggers: []Trigger{}},
			`{"scaleTargetRef":{"name":"web"},"triggers":[]}`,
		},
		"a minimum of zero": {
			ScaledObjectSpec{ScaleTargetRef: ScaleTarget{Name: "web"}, MinReplicaCount: new(int32(0)), Triggers: []Trigger{}},
			`{"scaleTargetRef":{"name":"web"},"minReplicaCount":0,"triggers":[]}`,
		},
		"a trigger without a name": {
			ScaledObjectSpec{
				ScaleTargetRef: ScaleTarget{Name: "web"}, Triggers: []Trigger{{Type: "cpu", Metadata: map[string]string{"value": "60"}}},
			},
			`{"scaleTargetRef":{"name":"web"},"triggers":[{"type":"cpu","metadata":{"value":"60"}}]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(tc.spec)
			if err != nil || string(got) != tc.want {
				t.Errorf("got %s, %v\nwant %s", got, err, tc.want)
			}
		})
	}
}

// TestCopiesShareNothing tests that whatever changes in a copy leaves the original, which may be the cache's, as it is.
func TestCopiesShareNothing(t *testing.T) {
	copies := map[string]func(*ScaledObject) *ScaledObject{
		"DeepCopy":    func(so *ScaledObject) *ScaledObject { return so.DeepCopy() },
		"an object's": func(so *ScaledObject) *ScaledObject { return so.DeepCopyObject().(*ScaledObject) },
		"into one that is used": func(so *ScaledObject) *ScaledObject {
			out := &ScaledObject{Spec: ScaledObjectSpec{Triggers: []Trigger{{Type: "of before"}, {}, {}}}}
			so.DeepCopyInto(out)
			return out
		},
		"a list's": func(so *ScaledObject) *ScaledObject {
			list := &ScaledObjectList{Items: []ScaledObject{{}, *so}}
			return &list.DeepCopyObject().(*ScaledObjectList).Items[1]
		},
	}
	changes := map[string]func(*ScaledObject){
		"its type":            func(so *ScaledObject) { so.Kind = "x" },
		"its name":            func(so *ScaledObject) { so.Name = "x" },
		"an annotation":       func(so *ScaledObject) { so.Annotations["scale-to-zero/replicas"] = "9" },
		"a label":             func(so *ScaledObject) { delete(so.Labels, "scaledobject.keda.sh/name") },
		"a finalizer":         func(so *ScaledObject) { so.Finalizers[0] = "x" },
		"its target":          func(so *ScaledObject) { so.Spec.ScaleTargetRef.Name = "x" },
		"pollingInterval":     func(so *ScaledObject) { *so.Spec.PollingInterval = 9 },
		"cooldownPeriod":      func(so *ScaledObject) { *so.Spec.CooldownPeriod = 9 },
		"its first cool-down": func(so *ScaledObject) { *so.Spec.InitialCooldownPeriod = 9 },
		"idleReplicaCount":    func(so *ScaledObject) { *so.Spec.IdleReplicaCount = 9 },
		"minReplicaCount":     func(so *ScaledObject) { *so.Spec.MinReplicaCount = 9 },
		"its formula":         func(so *ScaledObject) { so.Spec.Advanced.ScalingModifiers.Formula = "x" },
		"maxReplicaCount":     func(so *ScaledObject) { *so.Spec.MaxReplicaCount = 9 },
		"a trigger":           func(so *ScaledObject) { so.Spec.Triggers[0].Type = "x" },
		"the last trigger":    func(so *ScaledObject) { so.Spec.Triggers[1].Metadata["start"] = "x" },
		"its authentication":  func(so *ScaledObject) { so.Spec.Triggers[0].AuthenticationRef.Name = "x" },
		"a trigger's value":   func(so *ScaledObject) { so.Spec.Triggers[0].Metadata["scalerAddress"] = "x" },
	}
	for how, copied := range copies {
		original := decoded(t)
		if diff := cmp.Diff(original, copied(original)); diff != "" {
			t.Errorf("%s: not the same: %s", how, diff)
		}
		for what, change := range changes {
			c := copied(original)
			change(c)
			if cmp.Equal(original, c) {
				t.Errorf("%s: %s does not change", how, what)
			}
			if diff := cmp.Diff(decoded(t), original); diff != "" {
				t.Errorf("%s: %s changes the original too: %s", how, what, diff)
				original = decoded(t)
			}
		}
	}
}

// TestCopyOfNothing tests that what is not set is not set in a copy, so that a patch between the two is empty.
func TestCopyOfNothing(t *testing.T) {
	got, err := json.Marshal((&ScaledObject{Spec: ScaledObjectSpec{Triggers: []Trigger{{Type: "cpu"}}}}).DeepCopy())
	want := `{"metadata":{},"spec":{"scaleTargetRef":{"name":""},"triggers":[{"type":"cpu","metadata":null}]}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
	list := &ScaledObjectList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "c"}}
	list.Kind = "ScaledObjectList"
	copied := list.DeepCopyObject().(*ScaledObjectList)
	if copied.Kind != list.Kind || copied.ResourceVersion != "7" || copied.Continue != "c" || len(copied.Items) != 0 {
		t.Errorf("a list without items: %+v", copied)
	}
}

// TestScheme tests that a client finds the types under the names by which KEDA serves them.
func TestScheme(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]runtime.Object{"ScaledObject": &ScaledObject{}, "ScaledObjectList": &ScaledObjectList{}} {
		got, err := scheme.New(GroupVersion().WithKind(kind))
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %T, %v", kind, got, err)
		}
		kinds, _, err := scheme.ObjectKinds(want)
		if err != nil || len(kinds) != 1 || kinds[0].String() != "keda.sh/v1alpha1, Kind="+kind {
			t.Errorf("%s is known as %v, %v", kind, kinds, err)
		}
	}
	if !scheme.Recognizes(GroupVersion().WithKind("ListOptions")) {
		t.Error("it cannot be listed: the options of a list are not known")
	}
}

func TestTargetKind(t *testing.T) {
	for target, want := range map[ScaleTarget]string{
		{Name: "web"}: "Deployment",
		{Name: "web", APIVersion: "apps/v1", Kind: "StatefulSet"}:          "StatefulSet",
		{Name: "web", APIVersion: "argoproj.io/v1alpha1", Kind: "Rollout"}: "Rollout",
	} {
		if got := target.TargetKind(); got != want {
			t.Errorf("%+v: %s", target, got)
		}
	}
}

// TestDefaults tests what KEDA 2.21 takes for a field that is not set.
func TestDefaults(t *testing.T) {
	unset, set := ScaledObjectSpec{}, decoded(t).Spec
	*set.MinReplicaCount = 3
	for name, tc := range map[string]struct{ unset, set, wantUnset, wantSet any }{
		"how often it asks":     {unset.Polling(), set.Polling(), 30 * time.Second, 30 * time.Second},
		"when it puts to sleep": {unset.Cooldown(), set.Cooldown(), 300 * time.Second, 32 * time.Second},
		"asleep":                {unset.Idle(), set.Idle(), int32(0), int32(0)},
		"woken":                 {unset.Woken(), set.Woken(), int32(1), int32(3)},
		"at most":               {unset.Max(), set.Max(), int32(100), int32(2)},
		"the formula":           {unset.Formula(), set.Formula(), "", "requests + 1"},
	} {
		if tc.unset != tc.wantUnset || tc.set != tc.wantSet {
			t.Errorf("%s: unset %v, set %v", name, tc.unset, tc.set)
		}
	}
	set.IdleReplicaCount = nil
	if set.Idle() != 3 {
		t.Errorf("without idleReplicaCount it has %d when idle, want its minReplicaCount 3", set.Idle())
	}
}
