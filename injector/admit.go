// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
)

// Admit does to a Service that is being written what admission must do: it keeps, adds or takes out the sentinel. It
// changes service in place and touches nothing but SentinelKey in its selector and RouteAnnotation. old is what the API
// server has now, nil on create. byController says that the write is our controller's own, which alone may change
// RouteAnnotation: everybody else's writes keep what was there, a replace with a file from elsewhere included.
//
// The write that takes the opt-in off, or sets it to false, takes the sentinel out. A Service without one may be opted in
// by its namespace or an Ingress, which the controller knows.
//
// An error is one that the user must mend; the write is to be denied with it. Our controller changes no setting, and its writes are
// not: it must be able to give a Service back whose label or annotations were written while admission was away.
//
// Applying it twice equals applying it once.
func Admit(service, old *corev1.Service, byController bool) error {
	optedIn, err := OptedIn(service)
	if err != nil && !byController {
		return err
	}
	if !byController && (optedIn || TakenOver(service, old)) {
		if err := checkService(service); err != nil {
			return err
		}
	}
	wasOptedIn := false
	if old != nil {
		wasOptedIn, _ = OptedIn(old)
	}
	route := service.Annotations[RouteAnnotation]
	switch {
	case old == nil:
		// A route is made for this very Service, later; this one may be a copy of another that had one.
		route = ""
	case OptedOut(service), !optedIn && wasOptedIn:
		route = ""
	case !byController:
		route = old.Annotations[RouteAnnotation]
	}
	if len(OriginalSelector(service)) == 0 {
		route = ""
	}
	setRoute(service, route)
	return nil
}

// TakenOver says whether a Service that is being written is taken over, as old shows, and does not opt out.
func TakenOver(service, old *corev1.Service) bool {
	return old != nil && old.Annotations[RouteAnnotation] != "" && !OptedOut(service)
}

// checkService says whether the settings of a Service are ones that can be used.
func checkService(service *corev1.Service) error {
	if _, err := ParseSettings(service.Annotations); err != nil {
		return err
	}
	if err := checkNoNamespaceSetting(service.Annotations); err != nil {
		return err
	}
	return CheckPorts(service)
}

// AdmitNamespace says whether the annotations of a Namespace, defaults for its Services, are ones that can be used. The
// error is one that the user must mend.
func AdmitNamespace(namespace *corev1.Namespace) error {
	if _, err := OptedIn(namespace); err != nil {
		return err
	}
	const key = Prefix + "workload"
	if value, ok := namespace.Annotations[key]; ok {
		return &SettingError{Key: "annotation " + key, Value: value, Allowed: "it says what one Service routes to: set it on that Service, not on the Namespace"}
	}
	_, err := ParseSettings(namespace.Annotations)
	return err
}

// setRoute sets RouteAnnotation to route, or takes it off where route is empty, and the sentinel to match.
func setRoute(service *corev1.Service, route string) {
	if route == "" {
		delete(service.Annotations, RouteAnnotation)
	} else {
		if service.Annotations == nil {
			service.Annotations = map[string]string{}
		}
		service.Annotations[RouteAnnotation] = route
	}
	if route == RouteReady {
		service.Spec.Selector[SentinelKey] = SentinelValue
	} else {
		delete(service.Spec.Selector, SentinelKey)
	}
}

// Intercepted says whether the Service's traffic goes to the interceptors alone.
func Intercepted(service *corev1.Service) bool {
	return service.Spec.Selector[SentinelKey] == SentinelValue
}

// OriginalSelector returns the Service's selector as its author wrote it.
func OriginalSelector(service *corev1.Service) map[string]string {
	selector := maps.Clone(service.Spec.Selector)
	delete(selector, SentinelKey)
	return selector
}
