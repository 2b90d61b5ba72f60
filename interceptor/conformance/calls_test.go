// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"net/http"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestCallsAreNoted tests that an interceptor tells its peers and the injector which workload a pod calls that has just woken,
// whatever the two speak. A probe is no call.
func TestCallsAreNoted(t *testing.T) {
	for name, tt := range map[string]struct {
		protocol, version, agent string
		noted                    bool
	}{
		"HTTP/1.1": {api.ProtocolHTTP, "1.1", "app", true},
		"HTTP/2":   {api.ProtocolHTTP, "2", "app", true},
		"TCP":      {api.ProtocolTCP, "1.1", "app", true},
		"probe":    {api.ProtocolHTTP, "1.1", "kube-probe/1.37", false},
	} {
		t.Run(name, func(t *testing.T) {
			callee := pod(t, func(http.ResponseWriter, *http.Request) {})
			n := start(t, "one", &addresses{}, nil)
			caller, called := service(freePort(t), api.ProtocolHTTP), service(freePort(t), tt.protocol, callee)
			caller.Name, caller.Routes.Service, caller.Routes.Workload.Name = "front", "front", "front"
			n.set(caller)
			n.set(called)
			n.synced()
			n.waitReady()
			caller.Pods, caller.IPs = 1, []string{"127.0.0.1"}
			n.set(caller)
			n.applied()
			c := client()
			if tt.version == "2" {
				c.Transport.(*http.Transport).Protocols = new(http.Protocols)
				c.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(true)
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url(called.Routes.Ports[0].Listen, "/"), nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("User-Agent", tt.agent)
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			calls := n.news().GetCalls()
			if !tt.noted {
				if len(calls) > 0 {
					t.Errorf("calls %v", calls)
				}
				return
			}
			if len(calls) != 1 || calls[0].GetNamespace() != "shop" || calls[0].GetCaller() != "Deployment/front" ||
				calls[0].GetCallee() != "Deployment/web" || calls[0].GetAsleep() {
				t.Errorf("calls %v", calls)
			}
		})
	}
}
