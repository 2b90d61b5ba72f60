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

// Use is what the interceptors know of the requests for a workload.
type Use struct {
	Pending int64
	// Idle is the time since the last request that they know of.
	Idle time.Duration
	// Counted is how long they have been counting: no request can have been missed since.
	Counted time.Duration
}

// within says whether a request may have come within a time: the interceptors may not have counted for so long yet.
func (u Use) within(d time.Duration) bool { return u.Pending > 0 || u.Idle < d || u.Counted < d }

// unasked says that no request can have woken a workload that leaves sleep now: somebody has scaled it up. `kubectl scale` leaves
// no trace in the managed fields.
func (u *Use) unasked() bool { return u != nil && u.Pending == 0 && min(u.Idle, u.Counted) > aMoment }

// Slept is how a workload came to have no replicas.
type Slept struct {
	// By is the field manager that set the count, as ScaledBy returns it.
	By string
	// Paused is why no request may wake it; empty if one may.
	Paused string
	// Ready says that a pod became ready after it was last scaled up.
	Ready bool
	// For is the time since then, or since it was scaled up if none did. 0 is unknown.
	For time.Duration
	// Use is nil if the interceptors have not answered.
	Use *Use
	// Cooldown is the idle time after which it sleeps.
	Cooldown time.Duration
	// ToKeep says how to keep it at zero replicas.
	ToKeep string
}

// aMoment is longer than it takes to notice that a workload has no replicas: a more recent request may have come after it fell
// asleep.
const aMoment = 5 * time.Second

// Note is the event that reports it.
//
// The API server does not record who scaled to zero through the scale subresource, as KEDA and `kubectl scale` do. So the note
// only says what the idle time proves: KEDA never puts an app to sleep that has been idle for less than api.InactiveAfter.
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
	case idle >= enough: // or not known
		return fmt.Sprintf("%s has gone to zero replicas%s. The next request wakes it", workload, awake)
	case s.Use != nil && (s.Use.Pending > 0 || s.Use.Idle < aMoment):
		return fmt.Sprintf("%s has gone to zero replicas%s, in use until a moment ago. The next request wakes it. %s", workload, awake, s.ToKeep)
	default:
		return fmt.Sprintf("%s was scaled to zero%s, not for lack of requests: it had been idle for less than %s, and sleeps after %s. "+
			"The next request wakes it. %s",
			workload, awake, Short(idle.Truncate(time.Second)+time.Second), Short(s.Cooldown), s.ToKeep)
	}
}

// neverReady is the note on a workload that never became ready.
func (s Slept) neverReady(workload string) string {
	why := "no pod was ready" // one may have been before anybody looked
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

// idle is the longest time that the idle clock can have shown. It starts when the workload is ready.
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

// quietFor is how long there certainly was no request.
func (s Slept) quietFor() time.Duration {
	if s.Use == nil {
		return 0
	}
	return min(s.idle(), s.Use.Counted)
}

// ScaledBy returns the field manager that was the last to change the replica count of an object with these managed fields,
// or nothing if none of them owns it. KeepReplicaOwners keeps what it needs.
//
// A count of zero that came through the scale subresource has no owner: the Scale object leaves it out.
func ScaledBy(fields []metav1.ManagedFieldsEntry) string {
	for _, m := range fields {
		if m.Subresource == "scale" {
			return m.Manager // who changes the count owns it alone
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

// scaled stands for FieldsV1 that include the replica count: KeepReplicaOwners keeps no more of them.
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

// scalesForUs says whether a field manager scales by what the interceptors count: KEDA's operator, whose binary is named
// keda or keda-operator, or ourselves.
func scalesForUs(manager string) bool {
	return slices.Contains([]string{"keda", "keda-operator", ManagedBy}, manager)
}

// ScaledByHand says whether somebody else has set the replica count of an object with these managed fields.
func ScaledByHand(fields []metav1.ManagedFieldsEntry) bool {
	by := ScaledBy(fields)
	return by != "" && !scalesForUs(by)
}
