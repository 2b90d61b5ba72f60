// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Scaling is how a workload is scaled: the merged settings of all Services that route to it.
type Scaling struct {
	// MinReplicas is the smallest count, 0 if the workload may sleep. WakeReplicas is the smallest while it is awake, and MaxReplicas the
	// largest.
	MinReplicas, WakeReplicas, MaxReplicas int32
	TargetPendingRequests                  int32
	TargetRequestRate                      float64 // 0 if the rate does not matter
	Cooldown                               time.Duration
}

// scalingRequest is the content of ScalingAnnotation. The cool-down is in the routes.
type scalingRequest struct {
	MinReplicas           int32   `json:"minReplicas"`
	WakeReplicas          int32   `json:"wakeReplicas,omitempty"`
	MaxReplicas           int32   `json:"maxReplicas,omitempty"`
	TargetPendingRequests int32   `json:"targetPendingRequests"`
	TargetRequestRate     float64 `json:"targetRequestRate,omitempty"`
	StartupCPU            string  `json:"startupCPU,omitempty"`
	Asleep                bool    `json:"asleep,omitempty"`
	AsleepBy              string  `json:"asleepBy,omitempty"`
}

func encodeScaling(s Settings) string {
	b, _ := json.Marshal(scalingRequest{ // it cannot fail: plain values
		MinReplicas: s.MinReplicas, WakeReplicas: s.WakeReplicas, MaxReplicas: s.MaxReplicas, TargetPendingRequests: s.TargetPendingRequests,
		TargetRequestRate: s.TargetRequestRate, StartupCPU: s.StartupCPU,
		Asleep: s.Asleep, AsleepBy: s.AsleepBy,
	})
	return string(b)
}

// ScalingSettings reads from a route slice how its Service wants the workload to be scaled. The other Settings are the defaults.
func ScalingSettings(routeSlice *discoveryv1.EndpointSlice, routes api.Routes) (Settings, error) {
	s := DefaultSettings()
	var asked scalingRequest
	if err := json.Unmarshal([]byte(routeSlice.Annotations[ScalingAnnotation]), &asked); err != nil {
		return s, fmt.Errorf("decoding annotation %s of slice %s: %w", ScalingAnnotation, routeSlice.Name, err)
	}
	if asked.TargetPendingRequests < 1 || asked.TargetRequestRate != 0 && !validRate(asked.TargetRequestRate) {
		return s, fmt.Errorf("decoding annotation %s of slice %s: a replica is to have %d pending requests, or %g each second",
			ScalingAnnotation, routeSlice.Name, asked.TargetPendingRequests, asked.TargetRequestRate)
	}
	s.MinReplicas, s.MaxReplicas = asked.MinReplicas, asked.MaxReplicas
	s.TargetPendingRequests, s.TargetRequestRate = asked.TargetPendingRequests, asked.TargetRequestRate
	s.Cooldown, s.StartupCPU = time.Duration(routes.Cooldown), asked.StartupCPU
	s.WakeReplicas, s.Asleep, s.AsleepBy = asked.WakeReplicas, asked.Asleep, asked.AsleepBy
	return s, nil
}

// NewScaling merges the settings of the Services that route to one workload. It takes the most careful of each: the longest
// cool-down, the most replicas, the fewest requests per replica. remembered is the replica count before the injection: unless a setting
// says otherwise, the workload has as many while it is awake.
func NewScaling(all []Settings, remembered int32) Scaling {
	var s Scaling
	for i, one := range all {
		maxReplicas := one.MaxReplicas
		if maxReplicas == 0 {
			maxReplicas = max(1, remembered, one.WakeReplicas)
		}
		s.MinReplicas = max(s.MinReplicas, one.MinReplicas)
		s.WakeReplicas = max(s.WakeReplicas, one.WakeReplicas)
		s.MaxReplicas = max(s.MaxReplicas, maxReplicas, one.MinReplicas)
		s.Cooldown = max(s.Cooldown, one.Cooldown)
		if i == 0 || one.TargetPendingRequests < s.TargetPendingRequests {
			s.TargetPendingRequests = one.TargetPendingRequests
		}
		if rate := one.TargetRequestRate; rate > 0 && (s.TargetRequestRate == 0 || rate < s.TargetRequestRate) {
			s.TargetRequestRate = rate
		}
	}
	if s.WakeReplicas == 0 {
		s.WakeReplicas = remembered
	}
	s.WakeReplicas = max(1, min(s.WakeReplicas, s.MaxReplicas))
	return s
}

// keptUp returns s for a workload that must not sleep.
func (s Scaling) keptUp() Scaling {
	s.MinReplicas = max(s.MinReplicas, s.WakeReplicas)
	s.MaxReplicas = max(s.MaxReplicas, s.MinReplicas)
	return s
}

// Remember returns the replica count to restore on opt-out. It is at least 1, so that no app stays at zero. before is the remembered
// count, 0 if there is none, and current the workload's present count. A count beyond limit was requested by somebody else, and is
// remembered instead.
func Remember(before, current int32, limit int32) int32 {
	if before == 0 || current > limit {
		before = current
	}
	return max(1, before)
}

// Scaler is how KEDA reaches the interceptors.
type Scaler struct {
	// Address is host:port.
	Address string
	// Authentication is the ClusterTriggerAuthentication that KEDA authenticates itself with; empty for plain text.
	Authentication string
	// Credentials changes with what KEDA authenticates itself with. KEDA 2.21 keeps the certificate that it has read until the
	// ScaledObject changes; when that has expired and a connection breaks, the interceptors could no longer push to KEDA.
	Credentials string
}

// trigger adds to a trigger how KEDA authenticates itself.
func (s Scaler) trigger(t keda.Trigger) keda.Trigger {
	t.AuthenticationRef = s.authenticationRef()
	return t
}

func (s Scaler) authenticationRef() *keda.AuthenticationRef {
	if s.Authentication == "" {
		return nil
	}
	return &keda.AuthenticationRef{Name: s.Authentication, Kind: keda.ClusterTriggerAuthenticationKind}
}

// ScaledObject returns the ScaledObject of a workload. The workload owns it.
//
// KEDA wakes the workload when the interceptors push, and scales it between one replica and many. The controller puts it to sleep, since
// that costs KEDA much: each poll that finds an app active makes it patch the status. KEDA polls rarely, and puts the workload to sleep
// only if the controller is away.
//
// KEDA's own cool-down makes it ask twice: KEDA 2.21 considers a workload inactive while it rebuilds a scaler (its pull request 7737), so
// a change of the ScaledObject would put apps in use to sleep. Until KEDA has first seen the app active, its initial cool-down applies.
func ScaledObject(w Workload, s Scaling, remembered int32, scaler Scaler) *keda.ScaledObject {
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
			PollingInterval:       new(seconds(kedaPolling)),
			CooldownPeriod:        new(kedaCooldown),
			InitialCooldownPeriod: new(seconds(s.Cooldown) + kedaCooldown),
			MinReplicaCount:       new(s.MinReplicas),
			MaxReplicaCount:       new(s.MaxReplicas),
			Triggers: []keda.Trigger{
				scaler.trigger(keda.Trigger{Type: externalPush, Metadata: triggerMetadata(w, s, api.InactiveAfter(s.Cooldown), scaler)}),
			},
		},
	}
	if s.MinReplicas == 0 && s.WakeReplicas > 1 {
		so.Spec.IdleReplicaCount, so.Spec.MinReplicaCount = new(int32(0)), new(s.WakeReplicas)
	}
	return so
}

// Restoring returns a copy of our ScaledObject that makes KEDA hold the workload at n replicas. So KEDA and its HPA do not undo the
// restored count while the ScaledObject is deleted.
func Restoring(so *keda.ScaledObject, n int32) *keda.ScaledObject {
	out := so.DeepCopy()
	out.Spec.IdleReplicaCount, out.Spec.MinReplicaCount, out.Spec.MaxReplicaCount = nil, new(n), new(n)
	return out
}

// Remembered returns the replica count in ReplicasAnnotation; 0 if there is none.
func Remembered(annotations map[string]string) int32 {
	n, err := strconv.ParseInt(annotations[ReplicasAnnotation], 10, 32)
	if err != nil || n < 1 {
		return 0
	}
	return int32(n)
}

// kedaPolling is how often KEDA asks whether an app is active. 10,000 apps in use then cost it 17 status patches a second. By default, its
// client makes no more than 20 requests a second.
const kedaPolling = 10 * time.Minute

// kedaCooldown is how many seconds KEDA keeps an app up after the last poll that found it active. It is longer than one interval, so that
// a single poll that finds the app inactive is never enough. KEDA stores the time of that poll in whole seconds.
const kedaCooldown = int32(kedaPolling/time.Second) + 2

func seconds(d time.Duration) int32 {
	return int32((d + time.Second - 1) / time.Second) //nolint:gosec // ParseSettings allows 30 days at most
}
