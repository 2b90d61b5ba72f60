// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Use is what the interceptors know about the requests for a workload.
type Use struct {
	Pending int64
	// Idle is the time since the last request that they know.
	Idle time.Duration
	// Counted is how long they have been counting. They have missed no request in that time.
	Counted time.Duration
}

// within reports whether a request may have come within the last d. It also returns true if the interceptors have not counted for
// that long yet.
func (u Use) within(d time.Duration) bool { return u.Pending > 0 || u.Idle < d || u.Counted < d }

// unasked says that no request can have woken a workload that leaves sleep now: somebody has scaled it up. `kubectl scale` leaves
// no trace in the managed fields.
func (u *Use) unasked() bool { return u != nil && u.Pending == 0 && min(u.Idle, u.Counted) > aMoment }

// Slept is how a workload came to have no replicas.
type Slept struct {
	// By is the field manager that set the count, as ScaledBy returns it.
	By string
	// Paused is why no request may wake the workload; empty if one may.
	Paused string
	// Ready is set if a pod became ready after the workload was last scaled up.
	Ready bool
	// For is the time since a pod became ready or, if none did, since the workload was scaled up. 0 means unknown.
	For time.Duration
	// Use is nil if the interceptors have not answered.
	Use *Use
	// Cooldown is how long the workload has to be idle before it sleeps.
	Cooldown time.Duration
	// ToKeep says how to keep the workload at zero replicas.
	ToKeep string
}

// aMoment is longer than it takes to notice that a workload has no replicas. A request within that time may have come after the
// workload fell asleep.
const aMoment = 5 * time.Second

// Note returns the note of the event about it.
//
// If the scale subresource is used, as by KEDA and `kubectl scale`, the API server does not record who scaled to zero. So the note
// says only what the idle time proves: KEDA never puts an app to sleep that has been idle for less than api.InactiveAfter.
func (s Slept) Note(workload string) string {
	switch {
	case s.Paused != "":
		return fmt.Sprintf("%s has gone to zero replicas: %s. Requests get 503 until that ends", workload, s.Paused)
	case s.By != "" && !scalesForUs(s.By):
		return fmt.Sprintf("%s was scaled to zero by %s, not for lack of requests. The next request wakes it. %s", workload, s.By, s.ToKeep)
	case !s.Ready:
		return s.neverReady(workload)
	}
	var awake string
	if s.For > 0 {
		awake = " after " + Rounded(s.For) + " awake"
	}
	enough := min(api.InactiveAfter(s.Cooldown), s.Cooldown)
	idle := s.idle()
	switch {
	case s.quietFor() >= enough:
		quiet := min(s.quietFor(), s.Cooldown).Truncate(time.Second)
		return fmt.Sprintf("%s has gone to zero replicas%s: no requests for %s; the next one wakes it", workload, awake, Short(quiet))
	case idle >= enough: // or unknown
		return fmt.Sprintf("%s has gone to zero replicas%s. The next request wakes it", workload, awake)
	case s.Use != nil && (s.Use.Pending > 0 || s.Use.Idle < aMoment):
		return fmt.Sprintf("%s has gone to zero replicas%s, in use until a moment ago. The next request wakes it. %s", workload, awake, s.ToKeep)
	default:
		return fmt.Sprintf("%s was scaled to zero%s, not for lack of requests: it had been idle for less than %s, and sleeps after %s. "+
			"The next request wakes it. %s",
			workload, awake, Short(idle.Truncate(time.Second)+time.Second), Short(s.Cooldown), s.ToKeep)
	}
}

// neverReady returns the note about a workload that never became ready.
func (s Slept) neverReady(workload string) string {
	why := "no pod was ready" // a pod may have been ready before anybody looked
	if s.For > 0 {
		why = "it never became ready in " + Rounded(s.For)
	}
	switch {
	case s.Use == nil || s.Use.Pending > 0:
	case s.For > 0:
		why += ", and nobody waits for it"
	default:
		why += ", and nobody waits for one"
	}
	return fmt.Sprintf("%s has gone to zero replicas: %s. The next request starts it again", workload, why)
}

// idle returns the longest idle time that is possible. The idle time starts when the workload is ready.
func (s Slept) idle() time.Duration {
	idle := time.Duration(math.MaxInt64)
	if s.Use != nil {
		idle = s.Use.Idle
		if s.Use.Pending > 0 {
			idle = 0
		}
	}
	if s.For > 0 {
		idle = min(idle, s.For)
	}
	return idle
}

// quietFor returns for how long there certainly was no request.
func (s Slept) quietFor() time.Duration {
	if s.Use == nil {
		return 0
	}
	return min(s.idle(), s.Use.Counted)
}

// ScaledBy returns the field manager that last changed the replica count, according to an object's managed fields; empty if none of
// them owns the count. KeepReplicaOwners keeps what ScaledBy needs.
//
// A count of zero that was set through the scale subresource has no owner, because the Scale object omits it.
func ScaledBy(fields []metav1.ManagedFieldsEntry) string {
	for _, m := range fields {
		if m.Subresource == "scale" {
			return m.Manager // whoever changes the count becomes its only owner
		}
	}
	var last metav1.ManagedFieldsEntry
	for _, m := range fields {
		if ownsReplicas(m) && (last.Manager == "" || last.Time.Before(m.Time)) {
			last = m
		}
	}
	return last.Manager
}

// scaled stands for any FieldsV1 that include the replica count. KeepReplicaOwners keeps nothing else of them.
const scaled = `{"f:spec":{"f:replicas":{}}}`

// KeepReplicaOwners returns the small part of managed fields that ScaledBy reads.
func KeepReplicaOwners(fields []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	var kept []metav1.ManagedFieldsEntry
	for _, m := range fields {
		switch {
		case m.Subresource == "scale":
			kept = append(kept, metav1.ManagedFieldsEntry{Manager: m.Manager, Subresource: m.Subresource})
		case ownsReplicas(m):
			kept = append(kept, metav1.ManagedFieldsEntry{Manager: m.Manager, Time: m.Time, FieldsV1: metav1.NewFieldsV1(scaled)})
		}
	}
	return kept
}

func ownsReplicas(m metav1.ManagedFieldsEntry) bool {
	if m.Subresource != "" || m.FieldsV1 == nil || !bytes.Contains(m.FieldsV1.GetRawBytes(), []byte(`"f:replicas"`)) {
		return false
	}
	var owned struct {
		Spec map[string]json.RawMessage `json:"f:spec"`
	}
	return json.Unmarshal(m.FieldsV1.GetRawBytes(), &owned) == nil && owned.Spec["f:replicas"] != nil
}

// scalesForUs reports whether a field manager scales by the interceptors' counts: KEDA's operator, whose binary is named keda or
// keda-operator, or ourselves.
func scalesForUs(manager string) bool {
	return slices.Contains([]string{"keda", "keda-operator", ManagedBy}, manager)
}

// ScaledByHand reports whether somebody else has set the replica count, according to an object's managed fields.
func ScaledByHand(fields []metav1.ManagedFieldsEntry) bool {
	by := ScaledBy(fields)
	return by != "" && !scalesForUs(by)
}
