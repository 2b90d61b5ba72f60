// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// replicaGuard guards the replica counts of workloads that we scale: applying a chart again writes the chart's count again.
type replicaGuard struct{}

// workload is the part of a Deployment or a StatefulSet that the guard reads.
type workload struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		Replicas *int32 `json:"replicas"`
	} `json:"spec"`
}

func (w workload) replicas() int32 {
	if w.Spec.Replicas == nil {
		return 1
	}
	return *w.Spec.Replicas
}

// Handle implements admission.Handler.
func (replicaGuard) Handle(_ context.Context, req admission.Request) admission.Response {
	old, err := oldObject(req, &workload{})
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if old == nil || injector.Remembered(old.Annotations) == 0 || byController(req) {
		return admission.Allowed("")
	}
	var wanted workload
	if err := json.Unmarshal(req.Object.Raw, &wanted); err != nil {
		return admission.Errored(http.StatusBadRequest, fmt.Errorf("decoding the object: %w", err))
	}
	replicas, remembered := injector.KeepReplicas(old.Annotations, old.replicas(), wanted.replicas())
	keep := map[string]string{injector.ReplicasAnnotation: remembered}
	if autoscaler, ok := old.Annotations[injector.AutoscalerAnnotation]; ok {
		keep[injector.AutoscalerAnnotation] = autoscaler
	}
	var patches []jsonpatch.Operation
	if replicas != wanted.replicas() {
		patches = append(patches, jsonpatch.NewOperation("add", "/spec/replicas", replicas))
	}
	patches = append(patches, annotationPatches(wanted.Annotations, keep)...)
	resp := admission.Patched("", patches...)
	warning := injector.KeptWarning(fieldManager(req), req.Kind.Kind+"/"+req.Name, keep[injector.AutoscalerAnnotation], replicas,
		wanted.replicas())
	if warning != "" {
		return resp.WithWarnings(warning)
	}
	return resp
}

// annotationPatches make sure that an object that is being written has the annotations keep. Only a replace omits any.
func annotationPatches(have, keep map[string]string) []jsonpatch.Operation {
	if have == nil && len(keep) > 0 {
		return []jsonpatch.Operation{jsonpatch.NewOperation("add", "/metadata/annotations", keep)}
	}
	var patches []jsonpatch.Operation
	for _, key := range slices.Sorted(maps.Keys(keep)) {
		if value, ok := have[key]; !ok || value != keep[key] {
			patches = append(patches, jsonpatch.NewOperation("add", annotationPath(key), keep[key]))
		}
	}
	return patches
}

func annotationPath(key string) string {
	return "/metadata/annotations/" + strings.ReplaceAll(key, "/", "~1")
}
