// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/http"
	"testing"
)

// TestReadyByItsOwnProbe: the first request is answered as soon as the app says that it is ready, long before the kubelet asks
// again. The app refuses requests that come before that.
func TestReadyByItsOwnProbe(t *testing.T) {
	t.Parallel()
	a := newAirflow(t, "HELM")
	a.optIn()
	a.asleep()
	a.patchPod(`{"containers":[{"name":"webserver","readinessProbe":{"periodSeconds":60,"initialDelaySeconds":0},
"env":[{"name":"START_DELAY","value":"1s"},{"name":"READY_DELAY","value":"1s"}]}]}`)
	got := get(t, a.url("/echo"))[0]
	if got.Status != http.StatusOK || got.Held == "" {
		t.Errorf("got %+v", got)
	}
	if ready := a.podIPs(); len(ready) > 0 {
		t.Errorf("the kubelet has called %v ready before", ready)
	}
}
