// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// triggerName is the name of our trigger in somebody else's ScaledObject.
const triggerName = "scale-to-zero"

// externalPush is the trigger type by which KEDA asks the interceptors, and they push to KEDA.
const externalPush = "external-push"

// triggerRequest is the content of TriggerAnnotation.
type triggerRequest struct {
	Metadata map[string]string `json:"metadata"`
	// AuthenticationRef is for KEDA.
	AuthenticationRef *keda.AuthenticationRef `json:"authenticationRef,omitempty"`
	// Asleep is set if we have paused the ScaledObject at zero replicas.
	Asleep bool `json:"asleep,omitempty"`
}

// encode returns the request as the value of TriggerAnnotation.
func (r triggerRequest) encode() string {
	b, _ := json.Marshal(r) // it cannot fail: text and a boolean
	return string(b)
}

// decodeTrigger reads a TriggerAnnotation. One that is missing or does not decode asks for nothing.
func decodeTrigger(annotations map[string]string) triggerRequest {
	var r triggerRequest
	if err := json.Unmarshal([]byte(annotations[TriggerAnnotation]), &r); err != nil {
		return triggerRequest{}
	}
	return r
}

// triggerMetadata is what KEDA tells the interceptors about a workload with each call.
func triggerMetadata(w Workload, s Scaling, inactiveAfter time.Duration, scaler Scaler) map[string]string {
	metadata := map[string]string{
		"scalerAddress":                   scaler.Address,
		api.MetadataWorkload:              w.Ref().String(),
		api.MetadataTargetPendingRequests: strconv.Itoa(int(s.TargetPendingRequests)),
		api.MetadataInactiveAfter:         inactiveAfter.String(),
	}
	if scaler.Credentials != "" {
		metadata[api.MetadataCredentials] = scaler.Credentials
	}
	if s.TargetRequestRate > 0 {
		metadata[api.MetadataTargetRequestRate] = rateText(s.TargetRequestRate)
	}
	return metadata
}

// inactiveAfter is the idle time after which our trigger in somebody else's ScaledObject is inactive: long enough for one of KEDA's
// polls to see every request. The ScaledObject's own cool-down begins with that poll.
func inactiveAfter(so *keda.ScaledObject) time.Duration { return so.Spec.Polling() + 2*time.Second }

// IsOurTrigger reports whether a trigger of somebody else's ScaledObject is ours.
func IsOurTrigger(t keda.Trigger) bool { return t.Type == externalPush && t.Name == triggerName }

// Triggered reports whether a ScaledObject of somebody else has our trigger, or we have asked for it.
func Triggered(so *keda.ScaledObject) bool {
	_, asked := so.Annotations[TriggerAnnotation]
	return so.Labels[ManagedByLabel] != ManagedBy && (asked || slices.ContainsFunc(so.Spec.Triggers, IsOurTrigger))
}

// AdmitScaledObject changes a ScaledObject that is being written: it has our trigger exactly if TriggerAnnotation asks for it. Only our
// controller may set that annotation, and a write of somebody else keeps it. old is the object as it was, nil on create.
//
// The other triggers stay as they are, in their order. Their owner's tools know nothing of ours, so it comes last.
func AdmitScaledObject(so, old *keda.ScaledObject, byController bool) {
	if !byController {
		keepAnnotation(so, old, TriggerAnnotation)
	}
	request := decodeTrigger(so.Annotations)
	so.Spec.Triggers = slices.DeleteFunc(so.Spec.Triggers, IsOurTrigger)
	if len(request.Metadata) > 0 {
		so.Spec.Triggers = append(so.Spec.Triggers, keda.Trigger{
			Type: externalPush, Name: triggerName, Metadata: request.Metadata, AuthenticationRef: request.AuthenticationRef,
		})
	}
}

// keepAnnotation makes an annotation stay what it was, on the object that is being written.
func keepAnnotation(now, old *keda.ScaledObject, key string) {
	delete(now.Annotations, key)
	if old == nil {
		return
	}
	if value, ok := old.Annotations[key]; ok {
		if now.Annotations == nil {
			now.Annotations = map[string]string{}
		}
		now.Annotations[key] = value
	}
}

// Annotations is a write of annotations: of each key its value, or nil to remove it.
type Annotations map[string]any

// AnnotationWrite changes annotations of an object.
type AnnotationWrite struct {
	Object      Object
	Annotations Annotations
}

// askForTrigger returns the write that makes admission add our trigger to somebody else's ScaledObject, or that pauses it as well. It
// is nil if nothing has to be written. unadmitted is set if admission has not done what it was asked for before.
func askForTrigger(so *keda.ScaledObject, want triggerRequest) (w *AnnotationWrite, unadmitted bool) {
	value := want.encode()
	admitted := so.DeepCopy()
	AdmitScaledObject(admitted, nil, true)
	asked := so.Annotations[TriggerAnnotation] == value
	unadmitted = asked && !SameTriggers(admitted.Spec.Triggers, so.Spec.Triggers)
	write := Annotations{}
	if !asked || unadmitted {
		write[TriggerAnnotation] = value
	}
	write.pause(so, want.Asleep)
	if len(write) == 0 {
		return nil, false
	}
	return &AnnotationWrite{so, write}, unadmitted
}

// withdrawTrigger returns the write that makes admission remove our trigger; nil if there is nothing of ours.
func withdrawTrigger(so *keda.ScaledObject) *AnnotationWrite {
	if !Triggered(so) {
		return nil
	}
	write := Annotations{TriggerAnnotation: nil}
	write.pause(so, false)
	return &AnnotationWrite{so, write}
}

// pause adds what makes KEDA hold the workload at zero, or lets go of it if we have paused it. A pause of somebody else stays.
func (a Annotations) pause(so *keda.ScaledObject, asleep bool) {
	_, paused := so.Annotations[keda.PausedReplicasAnnotation]
	switch ours := decodeTrigger(so.Annotations).Asleep; {
	case asleep && !paused:
		a[keda.PausedReplicasAnnotation] = "0"
	case !asleep && ours && paused:
		a[keda.PausedReplicasAnnotation] = nil
	}
}

// SameTriggers reports whether two lists of triggers are equal, as far as our type knows them.
func SameTriggers(a, b []keda.Trigger) bool {
	return slices.EqualFunc(a, b, func(a, b keda.Trigger) bool {
		return a.Type == b.Type && a.Name == b.Name && a.MetricType == b.MetricType && maps.Equal(a.Metadata, b.Metadata) &&
			equality.Semantic.DeepEqual(a.AuthenticationRef, b.AuthenticationRef)
	})
}
