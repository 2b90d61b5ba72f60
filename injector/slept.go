// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Slept is how a workload has come to have no replicas.
type Slept struct {
	// By is the field manager that has set the count, as ScaledBy returns it.
	By string
	// Paused is why no request may wake it; empty if one may.
	Paused string
	// Ready says that a pod was ready since it was last scaled up.
	Ready bool
	// For is the time since that, or, if none was, since it was scaled up. 0 is not known.
	For string
	// Cooldown is the idle time after which it sleeps.
	Cooldown time.Duration
	// ToKeep is what to do to keep it without replicas.
	ToKeep string
}

// Note tells it, in an event.
func (s Slept) Note(workload string) string {
	switch {
	case s.Paused != "":
		return fmt.Sprintf("%s has gone to zero replicas: %s. Requests get 503 until that ends", workload, s.Paused)
	case s.By != "" && !scalesForUs(s.By):
		return fmt.Sprintf("%s was scaled to zero by %s, not for lack of requests. The next request wakes it. %s", workload, s.By, s.ToKeep)
	case !s.Ready && s.For == "": // it may have been before anybody looked
		return fmt.Sprintf("%s has gone to zero replicas: no pod was ready, and nobody waits for one. The next request starts it again", workload)
	case !s.Ready:
		return fmt.Sprintf("%s has gone to zero replicas: it never became ready in %s, and nobody waits for it. The next request starts it again", workload, s.For)
	case s.For == "":
		return fmt.Sprintf("%s has gone to zero replicas: no requests for %s; the next one wakes it", workload, Short(s.Cooldown))
	default:
		return fmt.Sprintf("%s has gone to zero replicas after %s awake: no requests for %s; the next one wakes it", workload, s.For, Short(s.Cooldown))
	}
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

// scaled stands for FieldsV1 that have the replica count in them, and is all that KeepReplicaOwners keeps of them.
const scaled = `{"f:spec":{"f:replicas":{}}}`

// KeepReplicaOwners returns what ScaledBy reads of managed fields, which is little.
func KeepReplicaOwners(fields []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	var kept []metav1.ManagedFieldsEntry
	for _, m := range fields {
		switch {
		case m.Subresource == "scale":
			kept = append(kept, metav1.ManagedFieldsEntry{Manager: m.Manager, Subresource: m.Subresource})
		case ownsReplicas(m):
			kept = append(kept, metav1.ManagedFieldsEntry{Manager: m.Manager, Time: m.Time, FieldsV1: &metav1.FieldsV1{Raw: []byte(scaled)}})
		}
	}
	return kept
}

func ownsReplicas(m metav1.ManagedFieldsEntry) bool {
	if m.Subresource != "" || m.FieldsV1 == nil || !bytes.Contains(m.FieldsV1.Raw, []byte(`"f:replicas"`)) {
		return false
	}
	var owned struct {
		Spec map[string]json.RawMessage `json:"f:spec"`
	}
	return json.Unmarshal(m.FieldsV1.Raw, &owned) == nil && owned.Spec["f:replicas"] != nil
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
