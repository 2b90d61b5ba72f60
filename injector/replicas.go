// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strconv"
	"strings"
)

// KeepReplicas is what admission does to the replica count in a write of a workload that we scale. A write that repeats the
// remembered count keeps the current one: applying a chart again must neither wake the app nor undo KEDA's scaling. Any other count
// is a request, and is remembered from now on. KeepReplicas returns the count to write and the value of ReplicasAnnotation.
//
// Beside an autoscaler of the workload's owner, the remembered count is what the autoscaler had set. A write while the workload is
// awake is between its author and the autoscaler. One while it is asleep does not wake it, whatever the count.
//
// It applies to writes of the workload itself. It does not apply to the scale subresource, which `kubectl scale` and KEDA use.
func KeepReplicas(annotations map[string]string, old, wanted int32) (replicas int32, remembered string) {
	before := Remembered(annotations)
	if annotations[AutoscalerAnnotation] != "" {
		if old == 0 && wanted > 0 {
			return 0, strconv.Itoa(int(wanted))
		}
		return wanted, strconv.Itoa(int(before))
	}
	if wanted == before {
		return old, strconv.Itoa(int(before))
	}
	if wanted != old && wanted != 0 {
		before = wanted
	}
	return wanted, strconv.Itoa(int(before))
}

// KeptWarning is for a person whose replica count was not applied. It is empty for tools, which apply a chart again and again and
// mean its count only the first time: a warning each time would be noise.
//
// autoscaler is the value of AutoscalerAnnotation.
func KeptWarning(fieldManager, workload, autoscaler string, kept, wanted int32) string {
	if kept == wanted || !strings.HasPrefix(fieldManager, "kubectl") {
		return ""
	}
	if autoscaler != "" {
		return fmt.Sprintf("%s keeps %s: it sleeps, and %s decides how many it has when it is awake. A request or `kubectl scale` wakes it.",
			workload, replicasText(kept), autoscaler)
	}
	why := fmt.Sprintf("%s keeps %s: scale-to-zero's replica guard ignores %d, the count that it returns to anyway.", workload,
		replicasText(kept), wanted)
	if kept == 0 {
		return why + " A request or `kubectl scale` wakes it."
	}
	return why + " `kubectl scale` changes it."
}

func replicasText(n int32) string {
	if n == 1 {
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", n)
}
