// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestOwned tests that an interceptor says of no port that it is a Service's while another route has it.
func TestOwned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		owns := func(namespace, name string, want ...int32) {
			t.Helper()
			var got []int32
			owned, _ := f.Owned(namespace, name)
			for _, p := range owned.Ports {
				got = append(got, p.Listen)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s/%s (-want +got):\n%s", namespace, name, diff)
			}
		}
		if _, known := f.Owned("shop", "web"); known {
			t.Error("it knows a Service that does not exist")
		}
		robber := web()
		robber.Namespace, robber.Routes.ServiceUID = "evil", "robber"
		f.SetService(robber)
		mine := web()
		mine.Routes.ServiceUID = "mine"
		mine.Routes.Ports = append(mine.Routes.Ports, api.Port{Name: "admin", Port: 81, Listen: 10001, Protocol: api.ProtocolAuto})
		f.SetService(mine)
		owns("evil", "web", 10000)
		owns("shop", "web", 10001)
		owns("shop", "other")
		owns("", "web")

		f.RemoveService("evil", "web") // it lingers
		owns("evil", "web")
		owns("shop", "web", 10001)
		advance(time.Minute)
		owns("shop", "web", 10000, 10001)
		if owned, _ := f.Owned("shop", "web"); owned.ServiceUID != "mine" {
			t.Errorf("of Service %q", owned.ServiceUID)
		}

		f.RemoveService("shop", "web") // another Service of its name comes while it lingers
		mine.Routes.ServiceUID = "another"
		f.SetService(mine)
		owns("shop", "web", 10000, 10001)
		if owned, _ := f.Owned("shop", "web"); owned.ServiceUID != "another" {
			t.Errorf("of Service %q", owned.ServiceUID)
		}
		mine.Routes.Ports = mine.Routes.Ports[1:]
		f.SetService(mine)
		owns("shop", "web", 10001)
	})
}
