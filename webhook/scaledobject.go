// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"errors"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// scaledObjects warns about changes that the controller will undo. It denies nothing, because KEDA and its users must not depend on
// us.
type scaledObjects struct{}

// Handle implements admission.Handler.
func (scaledObjects) Handle(_ context.Context, req admission.Request) admission.Response {
	var wanted keda.ScaledObject
	old, err := oldObject(req, &keda.ScaledObject{})
	err = errors.Join(err, json.Unmarshal(req.Object.Raw, &wanted))
	if err != nil || old == nil || old.Labels[injector.ManagedByLabel] != injector.ManagedBy || byController(req) {
		return admission.Allowed("") // KEDA judges objects that we cannot read
	}
	changed := injector.ChangedFields(old.Spec, wanted.Spec)
	if len(changed) == 0 {
		return admission.Allowed("")
	}
	return admission.Allowed("").WithWarnings(injector.UndoneWarning(req.Name, changed))
}
