// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

func TestChangedFields(t *testing.T) {
	spec := ScaledObject(Workload{}, Scaling{MaxReplicas: 1, TargetPendingRequests: 1}, 1, Scaler{Address: "scaler:9090"}).Spec
	for name, tc := range map[string]struct {
		change func(*keda.ScaledObjectSpec)
		want   []string
	}{
		"nothing": {func(*keda.ScaledObjectSpec) {}, nil},
		"a trigger is added": {
			func(s *keda.ScaledObjectSpec) { s.Triggers = append(s.Triggers, keda.Trigger{Type: "cron"}) },
			[]string{"spec.triggers"},
		},
		"ours is changed": {func(s *keda.ScaledObjectSpec) { s.Triggers[0].Metadata["workload"] = "x" }, []string{"spec.triggers"}},
		"bounds": {
			func(s *keda.ScaledObjectSpec) { s.MinReplicaCount, s.MaxReplicaCount = nil, new(int32(9)) },
			[]string{"spec.minReplicaCount", "spec.maxReplicaCount"},
		},
		"times": {func(s *keda.ScaledObjectSpec) {
			s.PollingInterval, s.CooldownPeriod, s.InitialCooldownPeriod = nil, nil, nil
		}, []string{"spec.pollingInterval", "spec.cooldownPeriod", "spec.initialCooldownPeriod"}},
		"another workload":    {func(s *keda.ScaledObjectSpec) { s.ScaleTargetRef.Name = "x" }, []string{"spec.scaleTargetRef"}},
		"the same once again": {func(s *keda.ScaledObjectSpec) { s.MaxReplicaCount = new(*s.MaxReplicaCount) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			after := (&keda.ScaledObject{Spec: spec}).DeepCopy().Spec
			tc.change(&after)
			if diff := cmp.Diff(tc.want, ChangedFields(spec, after)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestKeptWarning(t *testing.T) {
	for name, tc := range map[string]struct {
		manager      string
		kept, wanted int32
		want         string
	}{
		"kubectl patch, asleep": {
			"kubectl-patch", 0, 1,
			"Deployment/web keeps 0 replicas: scale-to-zero's replica guard ignores 1, the count that it returns to anyway. " +
				"A request or `kubectl scale` wakes it.",
		},
		"kubectl edit, awake": {
			"kubectl-edit", 3, 1,
			"Deployment/web keeps 3 replicas: scale-to-zero's replica guard ignores 1, the count that it returns to anyway. " +
				"`kubectl scale` changes it.",
		},
		"server-side apply": {
			"kubectl", 1, 2,
			"Deployment/web keeps 1 replica: scale-to-zero's replica guard ignores 2, the count that it returns to anyway. " +
				"`kubectl scale` changes it.",
		},
		"the count passes": {"kubectl-patch", 3, 3, ""},
		"Helm":             {"helm", 0, 1, ""},
		"Argo CD":          {"argocd-controller", 0, 1, ""},
		"no name":          {"", 0, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := KeptWarning(tc.manager, "Deployment/web", "", tc.kept, tc.wanted); got != tc.want {
				t.Errorf("got %s", got)
			}
		})
	}
	const beside = "Deployment/web keeps 0 replicas: it sleeps, and HorizontalPodAutoscaler/web decides how many it has when it is awake. " +
		"A request or `kubectl scale` wakes it."
	if got := KeptWarning("kubectl-client-side-apply", "Deployment/web", "HorizontalPodAutoscaler/web", 0, 3); got != beside {
		t.Errorf("got %s", got)
	}
}
