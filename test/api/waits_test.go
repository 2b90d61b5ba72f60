// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"testing"
	"time"
)

// TestWaitsAreTold: if a labelled Service lacks something for long, an event says what, and the controller checks more
// rarely.
func TestWaitsAreTold(t *testing.T) {
	listInterceptors(t)
	fake := &interceptors{deaf: true}
	start(t, planeOptions{interceptors: fake})
	a := newApp(t, 1)
	a.label(`"true"`)
	a.told("Service", "web", "InjectionSkipped: Not injected: no interceptor of scale-to-zero is ready")
	listInterceptors(t, "198.18.0.2")
	a.told("Service", "web", "InjectionSkipped: Not injected: no interceptor answers scale-to-zero's controller on port ")
	first := fake.nextDial(t)
	if gap := fake.nextDial(t).Sub(first); gap < time.Second {
		t.Errorf("it is dialed again after %s", gap)
	}
	a.directMade()
	a.directSlice(false)
	fake.setDeaf(false)
	a.told("Service", "web", "InjectionSkipped: Not injected: Deployment/web has ready pods, but none is behind this Service")
	if a.intercepted() == nil {
		t.Error("intercepted before the pods were listed")
	}
	a.injected()
}

// nextDial waits until an interceptor is dialed, and returns the time.
func (i *interceptors) nextDial(t *testing.T) time.Time {
	t.Helper()
	dials := func() int {
		i.mu.Lock()
		defer i.mu.Unlock()
		return len(i.dialed)
	}
	before := dials()
	eventually(t, "an interceptor is dialed", func() error {
		if dials() == before {
			return errors.New("none was")
		}
		return nil
	})
	return time.Now()
}

// TestPortsOfAnotherService tests that interceptors that accept connections are not believed: nobody is redirected to them until they
// say that the routes are there.
func TestPortsOfAnotherService(t *testing.T) {
	listInterceptors(t, "198.18.0.2")
	fake := &interceptors{robbed: true}
	start(t, planeOptions{interceptors: fake})
	a := newApp(t, 1)
	a.label(`"true"`)
	a.directMade()
	a.directSlice(true)
	a.told("Service", "web", "InjectionSkipped: Not injected: no interceptor answers scale-to-zero's controller on port ")
	if s, _ := a.routeSlice(); len(s.Endpoints) > 0 || a.intercepted() == nil {
		t.Errorf("it lists %v", s.Endpoints)
	}
	fake.mu.Lock()
	fake.robbed = false
	fake.mu.Unlock()
	a.injected()
}
