package injector

import (
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Scaling is what a workload's ScaledObject is made of: the settings of all Services that route to it.
type Scaling struct {
	MinReplicas, MaxReplicas int32
	TargetPendingRequests    int32
	Cooldown                 time.Duration
}

// NewScaling merges the settings of the Services that route to one workload, with the most careful of each: the longest
// cool-down, the most replicas, the fewest requests for each. remembered is the replica count before takeover.
func NewScaling(all []Settings, remembered int32) Scaling {
	var s Scaling
	for i, one := range all {
		maxReplicas := one.MaxReplicas
		if maxReplicas == 0 {
			maxReplicas = max(1, remembered)
		}
		s.MinReplicas = max(s.MinReplicas, one.MinReplicas)
		s.MaxReplicas = max(s.MaxReplicas, maxReplicas, one.MinReplicas)
		s.Cooldown = max(s.Cooldown, one.Cooldown)
		if i == 0 || one.TargetPendingRequests < s.TargetPendingRequests {
			s.TargetPendingRequests = one.TargetPendingRequests
		}
	}
	return s
}

// Remember returns the replica count to go back to on opt-out: at least 1, so that no app is left at zero. before is
// what is remembered already (0 for nothing), current what the workload asks for now; a count beyond what KEDA may give
// was somebody else's wish and is remembered too.
func Remember(before, current int32, limit int32) int32 {
	if before == 0 || current > limit {
		before = current
	}
	return max(1, before)
}

// ScaledObject returns the ScaledObject of a workload, which owns it. scalerAddress is where KEDA finds the
// interceptors.
//
// KEDA's cool-down is nothing: the interceptors keep the idle clock, and KEDA asks them. Its initial cool-down is ours,
// since a ScaledObject that was never active would have the running app put to sleep at the first poll.
func ScaledObject(w Workload, s Scaling, remembered int32, scalerAddress string) *keda.ScaledObject {
	so := &keda.ScaledObject{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   w.Namespace,
			Name:        ScaledObjectName(w.Ref()),
			Labels:      map[string]string{ManagedByLabel: ManagedBy},
			Annotations: map[string]string{ReplicasAnnotation: strconv.Itoa(int(remembered))},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: w.Ref().APIVersion, Kind: w.Kind, Name: w.Name, UID: w.UID, Controller: new(true),
			}},
		},
		Spec: keda.ScaledObjectSpec{
			ScaleTargetRef:        keda.ScaleTarget{APIVersion: w.Ref().APIVersion, Kind: w.Kind, Name: w.Name},
			PollingInterval:       new(pollingInterval(s.Cooldown)),
			CooldownPeriod:        new(int32(0)),
			InitialCooldownPeriod: new(seconds(s.Cooldown)),
			MinReplicaCount:       new(s.MinReplicas),
			MaxReplicaCount:       new(s.MaxReplicas),
			Triggers: []keda.Trigger{{
				Type: "external-push",
				Metadata: map[string]string{
					"scalerAddress":                   scalerAddress,
					api.MetadataWorkload:              w.Ref().String(),
					api.MetadataTargetPendingRequests: strconv.Itoa(int(s.TargetPendingRequests)),
				},
			}},
		},
	}
	return so
}

// Restoring returns a copy of a ScaledObject of ours that makes KEDA itself hold the workload at n replicas: so that
// KEDA and its HPA do not undo what we restore while the ScaledObject goes.
func Restoring(so *keda.ScaledObject, n int32) *keda.ScaledObject {
	out := so.DeepCopy()
	out.Spec.MinReplicaCount, out.Spec.MaxReplicaCount = new(n), new(n)
	return out
}

// Remembered reads the replica count that a ScaledObject of ours remembers, at least 1.
func Remembered(so *keda.ScaledObject) int32 {
	n, err := strconv.ParseInt(so.Annotations[ReplicasAnnotation], 10, 32)
	if err != nil || n < 1 {
		return 1
	}
	return int32(n)
}

// pollingInterval is how often KEDA asks, in seconds: a quarter of the cool-down, and at most KEDA's own 30.
func pollingInterval(cooldown time.Duration) int32 { return min(max(seconds(cooldown/4), 1), 30) }

func seconds(d time.Duration) int32 {
	return int32((d + time.Second - 1) / time.Second) //nolint:gosec // ParseSettings allows 30 days at most
}
