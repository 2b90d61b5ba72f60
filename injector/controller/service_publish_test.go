// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// The dials of a Service with many ports run at the same time, but only so many, and race with nothing.
func TestPublishedDials(t *testing.T) {
	const ports, deaf = injector.MaxPorts, "10.0.0.2:10049"
	var running, most, dials atomic.Int64
	full := make(chan struct{})
	r := &ServiceReconciler{Options: Options{Dial: func(_ context.Context, address string) error {
		n := running.Add(1)
		defer running.Add(-1)
		for before := most.Load(); n > before && !most.CompareAndSwap(before, n); before = most.Load() {
		}
		if dials.Add(1) == maxDials {
			close(full)
		}
		<-full // the first ones wait until as many run as may
		if address == deaf {
			return errors.New("connection refused")
		}
		return nil
	}}}
	var routes api.Routes
	for i := range int32(ports) {
		routes.Ports = append(routes.Ports, api.Port{Name: fmt.Sprintf("p%d", i), Listen: 10000 + i})
	}
	got := r.published(t.Context(), routes, []injector.Interceptor{{Address: "10.0.0.1"}, {Address: "10.0.0.2"}, {Address: "10.0.0.3"}}, entrance{})
	if len(got.Interceptors) != 2 || got.Interceptors[1].Address != "10.0.0.3" || len(got.Ports) != ports {
		t.Errorf("published %d ports at %v", len(got.Ports), got.Interceptors)
	}
	if most.Load() != maxDials {
		t.Errorf("%d dials ran at a time, want %d", most.Load(), maxDials)
	}
}
