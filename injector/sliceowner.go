// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// IsRouteSlice reports whether an EndpointSlice is named, labelled and owned like those of RouteSlices. Whether its owner exists is
// for the caller to find out.
func IsRouteSlice(s *discoveryv1.EndpointSlice) bool {
	return s.Labels[api.RoleLabel] == api.RoleRoute && sliceMeta(s).Check() == nil
}

// RoutesOf returns the routes of a route slice. It returns false for other slices, and for those whose routes cannot be read or belong
// to another Service.
func RoutesOf(s *discoveryv1.EndpointSlice) (api.Routes, bool) {
	if !IsRouteSlice(s) {
		return api.Routes{}, false
	}
	routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
	return routes, err == nil && sliceMeta(s).CheckRoutes(routes) == nil
}

// IsDirectSlice reports whether an EndpointSlice says that Kubernetes keeps it for a direct Service. Slices that somebody else makes
// for that Service, or that Kubernetes mirrors from Endpoints, list what their author likes.
func IsDirectSlice(s *discoveryv1.EndpointSlice) bool {
	return s.Labels[api.RoleLabel] == api.RoleDirect && s.Labels[discoveryv1.LabelManagedBy] == api.EndpointSliceController
}

// OnlyPods leaves of direct slices the endpoints that are pods of their own namespace. not are addresses that no app has: those of the
// interceptors, to which an interceptor must not send requests.
func OnlyPods(list []discoveryv1.EndpointSlice, not []Interceptor) []discoveryv1.EndpointSlice {
	for i := range list {
		s := &list[i]
		s.Endpoints = slices.DeleteFunc(slices.Clone(s.Endpoints), func(e discoveryv1.Endpoint) bool {
			return !isPod(e, s.Namespace) || slices.ContainsFunc(not, func(other Interceptor) bool {
				return slices.Contains(e.Addresses, other.Address)
			})
		})
	}
	return list
}

// isPod reports whether an endpoint is a pod of the namespace, according to whoever wrote it.
func isPod(e discoveryv1.Endpoint, namespace string) bool {
	ref := e.TargetRef
	return ref != nil && ref.Kind == "Pod" && ref.Name != "" && (ref.Namespace == "" || ref.Namespace == namespace) &&
		!slices.ContainsFunc(e.Addresses, func(address string) bool { return !api.IsPodAddress(address) })
}

func sliceMeta(s *discoveryv1.EndpointSlice) api.SliceMeta {
	m := api.SliceMeta{
		Name: s.Name, AddressType: string(s.AddressType),
		Front: s.Labels[discoveryv1.LabelServiceName], Service: s.Labels[ServiceLabel],
		ManagedBy: s.Labels[discoveryv1.LabelManagedBy], MadeBy: s.Labels[ManagedByLabel],
	}
	for _, o := range s.OwnerReferences {
		m.Owners = append(m.Owners, api.Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: string(o.UID)})
	}
	return m
}
