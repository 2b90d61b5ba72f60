// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import "github.com/scale-to-zero/scale-to-zero/interceptor/api"

// Owned are the ports that the routes of one Service have here.
type Owned struct {
	// ServiceUID is the opted-in Service's.
	ServiceUID string
	Ports      []api.Port
}

// Owned returns the ports that belong to the routes of a Service, by the name of the Service that owns the route slices, and to no
// other. It returns false if there is no such Service.
func (t *Table) Owned(namespace, name string) (Owned, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, known := t.services.all[serviceKey{namespace, name}]
	if !known {
		return Owned{}, false
	}
	owned := Owned{ServiceUID: s.Routes.ServiceUID}
	for _, p := range s.Routes.Ports {
		key := keyOf(s, p)
		if r := t.routes[key]; r != nil && r.gone == nil && t.ports[p.Listen] == key {
			owned.Ports = append(owned.Ports, p)
		}
	}
	return owned, true
}
