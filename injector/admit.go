// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
)

// Admit changes a Service during a write as admission must: it keeps, adds or removes the sentinel. It changes service in place, and
// only SentinelKey in the selector and RedirectAnnotation. old is the Service in the API server, nil on create. byController is set
// if our controller is the writer.
//
// The first matching row decides about RedirectAnnotation, and the sentinel follows the annotation:
//
//	old       writer          service                        RedirectAnnotation
//	--------  --------------  -----------------------------  --------------------------------------------------------------
//	none      anybody         any                            removed: a route is made later, and this may be a copy
//	any       anybody         selects no pods                removed
//	any       anybody         opted out                      removed
//	opted in  anybody         neither opted in nor out       removed: this write takes the opt-in off
//	any       our controller  any other                      as it is written: asking for a route, or giving it up
//	any       anybody else    any other                      as old has it, also when a file from elsewhere replaces it
//
// A Service that is not opted in itself may be opted in by its Namespace or an Ingress. Only the controller knows that, so such a
// Service keeps what old has.
//
// An error denies the write, and the user has to fix it. Writes of our controller are never denied: the controller changes no
// setting, and must be able to restore a Service whose label or annotations were written while admission was down.
//
// Applying Admit twice equals applying it once.
func Admit(service, old *corev1.Service, byController bool) error {
	optedIn, err := OptedIn(service)
	if !byController {
		if err == nil && (optedIn || TakenOver(service, old)) {
			err = checkService(service)
		}
		if err != nil {
			return err
		}
	}
	setRedirect(service, admittedRedirect(service, old, optedIn, byController))
	return nil
}

// admittedRedirect returns the value of RedirectAnnotation by Admit's table. Empty removes the annotation.
func admittedRedirect(service, old *corev1.Service, optedIn, byController bool) string {
	if old == nil || len(OriginalSelector(service)) == 0 || OptedOut(service) {
		return ""
	}
	if wasOptedIn, _ := OptedIn(old); wasOptedIn && !optedIn {
		return ""
	}
	if byController {
		return service.Annotations[RedirectAnnotation]
	}
	return old.Annotations[RedirectAnnotation]
}

// TakenOver reports whether a Service in a write is injected, according to old, and not opted out.
func TakenOver(service, old *corev1.Service) bool {
	return old != nil && old.Annotations[RedirectAnnotation] != "" && !OptedOut(service)
}

// checkService checks the settings of a Service.
func checkService(service *corev1.Service) error {
	if _, err := ParseSettings(service.Annotations); err != nil {
		return err
	}
	if err := checkNoNamespaceSetting(service.Annotations); err != nil {
		return err
	}
	return CheckPorts(service)
}

// AdmitNamespace checks the annotations of a Namespace, which are defaults for its Services. An error denies the write, and the user
// has to fix it.
func AdmitNamespace(namespace *corev1.Namespace) error {
	if _, err := OptedIn(namespace); err != nil {
		return err
	}
	const key = Prefix + "workload"
	if value, ok := namespace.Annotations[key]; ok {
		return &SettingError{
			Key: "annotation " + key, Value: value, Allowed: "it says what one Service routes to: set it on that Service, not on the Namespace",
		}
	}
	_, err := ParseSettings(namespace.Annotations)
	return err
}

// setRedirect sets RedirectAnnotation to value, or removes it if value is empty. It makes the sentinel match.
func setRedirect(service *corev1.Service, value string) {
	if value == "" {
		delete(service.Annotations, RedirectAnnotation)
	} else {
		if service.Annotations == nil {
			service.Annotations = map[string]string{}
		}
		service.Annotations[RedirectAnnotation] = value
	}
	if value == RedirectReady {
		service.Spec.Selector[SentinelKey] = SentinelValue
	} else {
		delete(service.Spec.Selector, SentinelKey)
	}
}

// Intercepted reports whether all of the Service's traffic goes to the interceptors.
func Intercepted(service *corev1.Service) bool {
	return service.Spec.Selector[SentinelKey] == SentinelValue
}

// OriginalSelector returns the Service's selector as its author wrote it.
func OriginalSelector(service *corev1.Service) map[string]string {
	selector := maps.Clone(service.Spec.Selector)
	delete(selector, SentinelKey)
	return selector
}
