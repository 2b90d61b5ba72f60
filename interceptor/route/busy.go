// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// BusyCheck is how to find out whether a workload is busy, according to one of its Services.
type BusyCheck struct {
	Namespace, Service, ServiceUID string
	Workload                       api.Workload
	// SleepID changes whenever the pods do. It is the same at every interceptor.
	SleepID string
	// Busy is not nil, and must not be changed.
	Busy *api.Busy
	// Addrs are the ready pods, as ip:port, on the port of Busy.Request; empty if there is no request.
	Addrs []string
	// ProxyProtocol is set if connections to these begin with a PROXY protocol header.
	ProxyProtocol bool
}

// BusyChecks are the checks of a Table's workloads.
type BusyChecks struct{ Table *Table }

// Of returns the checks of a workload, in the order of its Services' names. A Service with routes of its own and of its Ingresses has
// one check.
func (b BusyChecks) Of(target *Target) []BusyCheck {
	if !target.BusyChecked() {
		return nil
	}
	t := b.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []BusyCheck
	for _, key := range t.services.of[target.Key] {
		s := t.services.all[key]
		known := slices.ContainsFunc(out, func(c BusyCheck) bool { return c.Service == s.Routes.Service })
		if s.Routes.Busy == nil || known {
			continue
		}
		c := BusyCheck{
			Namespace: s.Namespace, Service: s.Routes.Service, ServiceUID: s.Routes.ServiceUID, Workload: s.Routes.Workload,
			SleepID: s.SleepID, Busy: s.Routes.Busy,
		}
		if r := c.Busy.Request; r != nil {
			for _, p := range s.Routes.Ports {
				if p.Port == r.Port {
					c.Addrs, c.ProxyProtocol = slices.Clone(s.Endpoints[p.Name]), p.ProxyProtocol
				}
			}
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b BusyCheck) int { return strings.Compare(a.Service, b.Service) })
	return out
}

// BusyChecked reports whether a Service says how to find out whether the workload is busy.
func (o *orders) BusyChecked() bool { return o.checked.Load() }
