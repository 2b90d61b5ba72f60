// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/netip"
)

// ManagedBy is the value of the labels that say who made an object, on everything that the injector makes.
const ManagedBy = "scale-to-zero"

const (
	// ServiceLabel on the injector's objects names the Service for which they were made.
	ServiceLabel = "scale-to-zero/service"
	// EndpointSliceController is who makes the EndpointSlices of a Service with a selector, by their label
	// endpointslice.kubernetes.io/managed-by.
	EndpointSliceController = "endpointslice-controller.k8s.io"
)

// SliceMeta is what an EndpointSlice with RoleRoute says about itself.
type SliceMeta struct {
	Name, AddressType string
	// Front is the Service whose traffic the slice takes, and Service the one for which it was made, both by labels.
	Front, Service string
	// ManagedBy and MadeBy are the labels endpointslice.kubernetes.io/managed-by and app.kubernetes.io/managed-by.
	ManagedBy, MadeBy string
	// Owners are the owner references.
	Owners []Owner
}

// Owner is an owner reference.
type Owner struct{ APIVersion, Kind, Name, UID string }

// Check says why the slice is not one that the injector has made. Whoever may write EndpointSlices in a namespace can label one
// like ours. The name is what no two slices of a namespace have, and the only owner is what Kubernetes deletes a slice with: one
// that names no Service that exists is gone within seconds.
func (m SliceMeta) Check() error {
	switch {
	case m.ManagedBy != ManagedBy || m.MadeBy != ManagedBy:
		return fmt.Errorf("its labels say that it is managed by %q and %q, and not by %s", m.ManagedBy, m.MadeBy, ManagedBy)
	case !IsServiceName(m.Service):
		return fmt.Errorf("its label %s is %q, which cannot be the name of a Service", ServiceLabel, m.Service)
	case m.Front != m.Service && m.Front != AliasServiceName(m.Service):
		return fmt.Errorf("it is a slice of Service %s, and its label %s is %q", m.Front, ServiceLabel, m.Service)
	case m.AddressType != "IPv4" && m.AddressType != "IPv6":
		return fmt.Errorf("its addresses are of type %s", m.AddressType)
	case m.Name != RouteSliceName(m.Front, m.AddressType):
		return fmt.Errorf("its name is not %s", RouteSliceName(m.Front, m.AddressType))
	case len(m.Owners) != 1 || m.Owners[0].APIVersion != "v1" || m.Owners[0].Kind != "Service" || m.Owners[0].Name != m.Service:
		return fmt.Errorf("its only owner is not Service %s", m.Service)
	}
	return nil
}

// CheckRoutes says why the routes in the slice are not those of its owner. The slice has been checked.
func (m SliceMeta) CheckRoutes(r Routes) error {
	if owner := m.Owners[0]; r.Service != owner.Name || r.ServiceUID != owner.UID {
		return fmt.Errorf("its routes are those of Service %s (%s), and its owner is %s (%s)", r.Service, r.ServiceUID, owner.Name, owner.UID)
	}
	return nil
}

// IsPodAddress reports whether address can be a pod's, as seen from another pod: it leads neither back to whoever connects to it nor to
// a node's own services, such as a cloud's metadata.
func IsPodAddress(address string) bool {
	ip, err := netip.ParseAddr(address)
	ip = ip.Unmap()
	return err == nil && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsMulticast() && !ip.IsLinkLocalUnicast() &&
		ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
