// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"gomodules.xyz/jsonpatch/v2"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// scaledObjects keeps our trigger in the ScaledObjects of others, and warns about changes of ours that the controller will undo. It
// denies nothing, because KEDA and its users must not depend on us.
type scaledObjects struct{}

// Handle implements admission.Handler.
func (scaledObjects) Handle(_ context.Context, req admission.Request) admission.Response {
	var wanted keda.ScaledObject
	old, err := oldObject(req, &keda.ScaledObject{})
	err = errors.Join(err, json.Unmarshal(req.Object.Raw, &wanted))
	switch {
	case err != nil: // KEDA judges objects that we cannot read
		return admission.Allowed("")
	case isOurs(&wanted) || old != nil && isOurs(old):
		return ofOurs(req, &wanted, old)
	}
	admitted := wanted.DeepCopy()
	injector.AdmitScaledObject(admitted, old, byController(req))
	return admission.Patched("", triggerPatches(&wanted, admitted)...)
}

func isOurs(so *keda.ScaledObject) bool {
	return so.Labels[injector.ManagedByLabel] == injector.ManagedBy
}

// ofOurs warns about a change of our own ScaledObject.
func ofOurs(req admission.Request, wanted, old *keda.ScaledObject) admission.Response {
	if old == nil || byController(req) {
		return admission.Allowed("")
	}
	changed := injector.ChangedFields(old.Spec, wanted.Spec)
	if len(changed) == 0 {
		return admission.Allowed("")
	}
	return admission.Allowed("").WithWarnings(injector.UndoneWarning(req.Name, changed))
}

// triggerPatches turn wanted into admitted. The triggers of others are not touched: they may have fields that our type lacks.
func triggerPatches(wanted, admitted *keda.ScaledObject) []jsonpatch.Operation {
	const key = injector.TriggerAnnotation
	var patches []jsonpatch.Operation
	if value, asked := admitted.Annotations[key]; asked {
		patches = annotationPatches(wanted.Annotations, map[string]string{key: value})
	} else if _, copied := wanted.Annotations[key]; copied {
		patches = append(patches, jsonpatch.NewOperation("remove", annotationPath(key), nil))
	}
	if injector.SameTriggers(wanted.Spec.Triggers, admitted.Spec.Triggers) {
		return patches
	}
	for i, t := range slices.Backward(wanted.Spec.Triggers) {
		if injector.IsOurTrigger(t) {
			patches = append(patches, jsonpatch.NewOperation("remove", fmt.Sprintf("/spec/triggers/%d", i), nil))
		}
	}
	if last := len(admitted.Spec.Triggers) - 1; last >= 0 && injector.IsOurTrigger(admitted.Spec.Triggers[last]) {
		patches = append(patches, jsonpatch.NewOperation("add", "/spec/triggers/-", admitted.Spec.Triggers[last]))
	}
	return patches
}
