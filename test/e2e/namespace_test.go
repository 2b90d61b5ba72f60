// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// TestNamespace labels only the namespace. The web server, which an Ingress exposes, sleeps; the scheduler, which has no
// Service, is left alone. Without the label, everything is as before.
func TestNamespace(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM")
	kubectl(t, "annotate", "namespace", a.ns, "scale-to-zero/hold-timeout=2m")
	kubectl(t, "label", "namespace", a.ns, "scale-to-zero=true")
	eventually(t, "the Service is intercepted", func() error {
		if s := a.service(); !injector.Intercepted(s) {
			return fmt.Errorf("selector %v; events %q", s.Spec.Selector, a.events("Service", webserver))
		}
		return nil
	})
	a.asleep()
	a.visit(4, "/echo")
	a.upgrade("--reuse-values", "--set", "webserver.service.annotations.note=one")
	if s := a.service(); !injector.Intercepted(s) || s.Annotations["note"] != "one" {
		t.Errorf("after an upgrade of the chart: selector %v, annotations %v", s.Spec.Selector, s.Annotations)
	}
	a.asleep()
	kubectl(t, "label", "namespace", a.ns, "scale-to-zero-")
	a.visit(4, "/echo")
	eventually(t, "everything is back", func() error {
		if len(a.podIPs()) != 1 {
			return errors.New("there is no pod")
		}
		return a.remains()
	})
}
