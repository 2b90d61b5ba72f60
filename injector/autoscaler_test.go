// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// hpaOf returns an HPA of Deployment/web.
func hpaOf(name string, least, most int32, change ...func(*autoscalingv2.HorizontalPodAutoscaler)) autoscalingv2.HorizontalPodAutoscaler {
	hpa := autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
			MinReplicas:    &least, MaxReplicas: most,
		},
	}
	for _, c := range change {
		c(&hpa)
	}
	return hpa
}

// theirs returns a ScaledObject of Deployment/web that its owner made.
func theirs(name string, change ...func(*keda.ScaledObject)) keda.ScaledObject {
	so := keda.ScaledObject{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: name},
		Spec: keda.ScaledObjectSpec{
			ScaleTargetRef: keda.ScaleTarget{Name: "web"}, MaxReplicaCount: new(int32(5)),
			Triggers: []keda.Trigger{
				{Type: "cron", Metadata: map[string]string{"timezone": "Asia/Seoul"}},
				{Type: "cpu", MetricType: "Utilization", Metadata: map[string]string{"value": "70"}},
			},
		},
	}
	for _, c := range change {
		c(&so)
	}
	return so
}

// remembering makes a ScaledObject remember a replica count, as ours do.
func remembering(so *keda.ScaledObject) { so.Annotations = map[string]string{ReplicasAnnotation: "1"} }

func ofManager(manager string) func(*keda.ScaledObject) {
	return func(so *keda.ScaledObject) { so.Labels = map[string]string{ManagedByLabel: manager} }
}

func TestFindAutoscaler(t *testing.T) {
	type hpas = []autoscalingv2.HorizontalPodAutoscaler
	type scaledObjects = []keda.ScaledObject
	of := func(kind, name string) func(*autoscalingv2.HorizontalPodAutoscaler) {
		return func(hpa *autoscalingv2.HorizontalPodAutoscaler) {
			hpa.Spec.ScaleTargetRef.Kind, hpa.Spec.ScaleTargetRef.Name = kind, name
		}
	}
	byScaledObject := func(hpa *autoscalingv2.HorizontalPodAutoscaler) {
		hpa.OwnerReferences = []metav1.OwnerReference{{APIVersion: "keda.sh/v1alpha1", Kind: "ScaledObject", Name: "mine"}}
	}
	byOther := func(hpa *autoscalingv2.HorizontalPodAutoscaler) {
		hpa.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "ScaledObject", Name: "mine"}}
	}
	target := func(kind, name string) func(*keda.ScaledObject) {
		return func(so *keda.ScaledObject) { so.Spec.ScaleTargetRef = keda.ScaleTarget{Kind: kind, Name: name} }
	}
	least := func(n int32) func(*keda.ScaledObject) {
		return func(so *keda.ScaledObject) { so.Spec.MinReplicaCount = &n }
	}
	idle := func(so *keda.ScaledObject) { so.Spec.IdleReplicaCount = new(int32) }
	formula := func(so *keda.ScaledObject) {
		so.Spec.Advanced = &keda.Advanced{ScalingModifiers: &keda.ScalingModifiers{Formula: "a + b"}}
	}
	for name, tc := range map[string]struct {
		hpas hpas
		sos  scaledObjects
		want string
		skip Skip
	}{
		"nothing": {},
		"of somebody with our label": {
			sos: scaledObjects{theirs("web-deployment", ofManager(ManagedBy))},
			skip: "label app.kubernetes.io/managed-by=scale-to-zero of ScaledObject web-deployment marks what scale-to-zero makes, and this one " +
				"is somebody else's; give the label another value, or delete the ScaledObject",
		},
		"of another name with our label": {
			sos: scaledObjects{theirs("mine", ofManager(ManagedBy), remembering)},
			skip: "label app.kubernetes.io/managed-by=scale-to-zero of ScaledObject mine marks what scale-to-zero makes, and this one is " +
				"somebody else's; give the label another value, or delete the ScaledObject",
		},
		"ours": {sos: scaledObjects{theirs("web-deployment", ofManager(ManagedBy), remembering)}},
		"KEDA's HPA of ours": {
			hpas: hpas{hpaOf("keda-hpa-web-deployment", 1, 2)}, sos: scaledObjects{theirs("web-deployment", ofManager(ManagedBy), remembering)},
		},
		"an HPA":                       {hpas: hpas{hpaOf("web", 2, 5)}, want: "HorizontalPodAutoscaler/web"},
		"an HPA of a StatefulSet":      {hpas: hpas{hpaOf("web", 2, 5, of("StatefulSet", "web"))}},
		"an HPA of another Deployment": {hpas: hpas{hpaOf("web", 2, 5, of("Deployment", "api"))}},
		"an HPA with a minimum of 0": {
			hpas: hpas{hpaOf("web", 0, 5)}, want: "HorizontalPodAutoscaler/web",
			skip: "HorizontalPodAutoscaler web puts Deployment/web to sleep itself (minReplicas 0), whatever its requests; set minReplicas to 1, " +
				"and it scales from 1 up while scale-to-zero puts the app to sleep and wakes it",
		},
		"an HPA without a minimum": {
			hpas: hpas{hpaOf("web", 1, 5, func(hpa *autoscalingv2.HorizontalPodAutoscaler) { hpa.Spec.MinReplicas = nil })},
			want: "HorizontalPodAutoscaler/web",
		},
		"two HPAs": {
			hpas: hpas{hpaOf("web", 2, 5), hpaOf("load", 1, 3)}, want: "HorizontalPodAutoscaler/load",
			skip: "HorizontalPodAutoscaler load and HorizontalPodAutoscaler web scale Deployment/web and undo each other's changes; " +
				"delete all but one",
		},
		"a ScaledObject": {sos: scaledObjects{theirs("mine")}, want: "ScaledObject/mine"},
		"a ScaledObject with its HPA": {
			hpas: hpas{hpaOf("keda-hpa-mine", 1, 5, byScaledObject)}, sos: scaledObjects{theirs("mine")}, want: "ScaledObject/mine",
		},
		"a ScaledObject beside another's HPA": {
			hpas: hpas{hpaOf("web", 1, 5, byOther)}, sos: scaledObjects{theirs("mine")}, want: "HorizontalPodAutoscaler/web",
			skip: "HorizontalPodAutoscaler web and ScaledObject mine scale Deployment/web and undo each other's changes; delete all but one",
		},
		"a ScaledObject of a StatefulSet": {sos: scaledObjects{theirs("mine", target("StatefulSet", "web"))}},
		"a ScaledObject with the name of ours": {
			sos: scaledObjects{theirs("web-deployment", ofManager("Helm"))}, want: "ScaledObject/web-deployment",
		},
		"another's ScaledObject with the name of ours": {
			sos:  scaledObjects{theirs("web-deployment", target("Deployment", "api"))},
			skip: "there is a ScaledObject web-deployment that is not scale-to-zero's; rename or delete it",
		},
		"another's ScaledObject with the name of ours, which we do not need": {
			hpas: hpas{hpaOf("web", 2, 5)}, sos: scaledObjects{theirs("web-deployment", target("Deployment", "api"))},
			want: "HorizontalPodAutoscaler/web",
		},
		"a ScaledObject that never sleeps": {
			sos: scaledObjects{theirs("mine", least(2))}, want: "ScaledObject/mine",
			skip: "ScaledObject mine never puts Deployment/web to sleep (minReplicaCount 2); set its minReplicaCount to 0 or, to have 2 while " +
				"awake, add idleReplicaCount: 0",
		},
		"a ScaledObject that sleeps when idle": {sos: scaledObjects{theirs("mine", least(2), idle)}, want: "ScaledObject/mine"},
		"a ScaledObject with a formula": {
			sos: scaledObjects{theirs("mine", formula)}, want: "ScaledObject/mine",
			skip: "the formula of ScaledObject mine (advanced.scalingModifiers) alone decides when Deployment/web sleeps, whatever its " +
				"requests; remove the formula",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, skip := FindAutoscaler(workload("Deployment", "web", nil), tc.hpas, tc.sos)
			if diff := cmp.Diff(tc.skip, skip); got.String() != tc.want || diff != "" {
				t.Errorf("found %q, want %q\n%s", got, tc.want, diff)
			}
		})
	}
}

func TestAutoscalerBounds(t *testing.T) {
	woken := theirs("mine", func(so *keda.ScaledObject) { so.Spec.MinReplicaCount = new(int32(3)) })
	hpa, so := hpaOf("web", 2, 5), theirs("mine")
	for name, tc := range map[string]struct {
		autoscaler Autoscaler
		want       [3]int32 // for 0, 4 and 9
	}{
		"none":                              {Autoscaler{}, [3]int32{0, 4, 9}},
		"an HPA":                            {Autoscaler{HPA: &hpa}, [3]int32{2, 4, 5}},
		"a ScaledObject":                    {Autoscaler{ScaledObject: &so}, [3]int32{1, 4, 5}},
		"a ScaledObject that wakes several": {Autoscaler{ScaledObject: &woken}, [3]int32{3, 4, 5}},
	} {
		a := tc.autoscaler
		if got := [3]int32{a.within(0), a.within(4), a.within(9)}; got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

// TestAutoscalerSettings tests what applies of a Service's settings beside an autoscaler, and what is said about the others.
func TestAutoscalerSettings(t *testing.T) {
	hpa := hpaOf("web", 2, 5)
	so := theirs("mine", func(so *keda.ScaledObject) {
		so.Spec.PollingInterval, so.Spec.CooldownPeriod = new(int32(5)), new(int32(60))
	})
	set := DefaultSettings()
	set.MinReplicas, set.WakeReplicas, set.MaxReplicas, set.TargetPendingRequests, set.TargetRequestRate = 1, 2, 3, 50, 0.5
	for name, tc := range map[string]struct {
		autoscaler Autoscaler
		settings   Settings
		cooldown   time.Duration
		note       string
	}{
		"none": {Autoscaler{}, set, 5 * time.Minute, ""},
		"an HPA": {
			Autoscaler{HPA: &hpa},
			DefaultSettings(), 5 * time.Minute,
			"HorizontalPodAutoscaler web stays in charge of Deployment/web while it is awake, from 2 to 5. scale-to-zero only puts it to sleep " +
				"and wakes it, with as many replicas as it had",
		},
		"an HPA beside settings": {
			Autoscaler{HPA: &hpa},
			set, 5 * time.Minute,
			"HorizontalPodAutoscaler web stays in charge of Deployment/web while it is awake, from 2 to 5. scale-to-zero only puts it to sleep " +
				"and wakes it, with as many replicas as it had. Without effect beside it: scale-to-zero/max-replicas, " +
				"scale-to-zero/target-pending-requests, scale-to-zero/target-request-rate",
		},
		"a ScaledObject": {
			Autoscaler{ScaledObject: &so},
			set, 67 * time.Second,
			"ScaledObject mine stays in charge of Deployment/web and has a trigger of scale-to-zero, so that requests wake it. It sleeps when " +
				"no trigger has been active for the cooldownPeriod of 1m; for requests, that is 1m7s after the last one. " +
				"Without effect beside it: scale-to-zero/max-replicas, " +
				"scale-to-zero/min-replicas, scale-to-zero/wake-replicas",
		},
	} {
		t.Run(name, func(t *testing.T) {
			note := tc.autoscaler.note(workload("Deployment", "web", nil), []Settings{tc.settings})
			if diff := cmp.Diff(tc.note, note); diff != "" {
				t.Error(diff)
			}
			if got := tc.autoscaler.settings(tc.settings).Cooldown; got != tc.cooldown {
				t.Errorf("its cool-down is %s, want %s", got, tc.cooldown)
			}
		})
	}
}
