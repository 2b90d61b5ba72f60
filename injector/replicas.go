// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strconv"
	"strings"
)

// KeepReplicas is what admission does to the replica count that a write gives a workload of ours: the count that its chart
// always says, which is the remembered one, is no wish to wake it, nor to undo what KEDA has scaled it to, so the count
// stays as it is. Any other count is a wish, and is remembered from now on. It returns the count to be written and the
// value of ReplicasAnnotation.
//
// It is for writes of the workload itself; the scale subresource, as `kubectl scale` and KEDA use it, does not come here.
func KeepReplicas(annotations map[string]string, old, wanted int32) (replicas int32, remembered string) {
	before := Remembered(annotations)
	if wanted == before {
		return old, strconv.Itoa(int(before))
	}
	if wanted != old && wanted != 0 {
		before = wanted
	}
	return wanted, strconv.Itoa(int(before))
}

// KeptWarning is for a person whose write gave a workload another count than it keeps; nothing for others. Deployment tools
// apply a chart again and again, and mean its count only for the first time: to warn them each time is noise.
func KeptWarning(fieldManager, workload string, kept, wanted int32) string {
	if kept == wanted || !strings.HasPrefix(fieldManager, "kubectl") {
		return ""
	}
	why := fmt.Sprintf("%s keeps %s: scale-to-zero takes %d for the chart's count, applied again.", workload, replicasText(kept), wanted)
	if kept == 0 {
		return why + " A visit or `kubectl scale` wakes it."
	}
	return why + " `kubectl scale` changes it."
}

func replicasText(n int32) string {
	if n == 1 {
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", n)
}
