// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A target reflects its present Services, whichever came, changed or left before.
func TestTargetFollowsItsServices(t *testing.T) {
	f := newFixture(0)
	serve := func(name, workload string, listen int32, cooldown time.Duration, published bool) {
		s := web()
		s.Name, s.Routes.Service, s.Published = name, name, published
		s.Routes.Workload.Name, s.Routes.Cooldown = workload, api.Duration(cooldown)
		s.Routes.Ports = []api.Port{{Name: "http", Port: 80, Listen: listen, Protocol: api.ProtocolAuto}}
		f.SetService(s)
	}
	cooldown := func(workload string) time.Duration {
		target := f.Target(Key{Namespace: "shop", Workload: "Deployment/" + workload})
		if target == nil {
			return -1
		}
		return target.Cooldown()
	}
	serve("a", "web", 10000, time.Minute, true)
	serve("b", "web", 10001, time.Hour, true)
	if got := cooldown("web"); got != time.Hour {
		t.Errorf("of two it is %s, want the longest", got)
	}
	serve("b", "db", 10001, time.Hour, false)
	if web, db := cooldown("web"), cooldown("db"); web != time.Minute || db != time.Hour {
		t.Errorf("after one has changed its workload they are %s and %s", web, db)
	}
	serve("c", "web", 10000, 2*time.Hour, false) // another Service has its port
	if got := cooldown("web"); got != 2*time.Hour {
		t.Errorf("with one that waits for its port it is %s", got)
	}
	if !f.Published() {
		t.Error("not published although one is")
	}
	f.RemoveService("shop", "a")
	if f.Published() {
		t.Error("published although none is")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := f.services.of[Key{Namespace: "shop", Workload: "Deployment/web"}]; len(got) != 1 || got[0].service != "c" {
		t.Errorf("its Services are %v", got)
	}
	if len(f.services.all) != 2 || len(f.services.of) != 2 {
		t.Errorf("%d Services of %d workloads", len(f.services.all), len(f.services.of))
	}
}
