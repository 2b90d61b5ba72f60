// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// OptInLabel on a Service, an Ingress or a Namespace opts it in ("true") or out ("false"). EnabledAnnotation does the same.
const OptInLabel = "scale-to-zero"

// Prefix of every annotation and label of ours but OptInLabel.
const Prefix = "scale-to-zero/"

const (
	// SentinelKey is the one key that admission adds to the selector of a Service that is injected. No pod carries it, so
	// Kubernetes empties its own EndpointSlices of the Service, and the original selector stays readable in place.
	SentinelKey = Prefix + "intercepted"
	// SentinelValue is its value.
	SentinelValue = "true"

	// RedirectAnnotation on the user's Service is how the controller asks admission: RedirectReady asks for the sentinel, and
	// removing the annotation asks for the sentinel's removal. Nobody else can change it.
	RedirectAnnotation = Prefix + "route"
	// RedirectReady is its only value.
	RedirectReady = "ready"

	// ServiceLabel on our objects names the Service that they were made for.
	ServiceLabel = Prefix + "service"
	// ReplicasAnnotation on a workload, and on its ScaledObject, remembers how many replicas the workload had before it was
	// injected: KEDA's own memory starts at its first look, when the app may be asleep, and there may be no KEDA. We scale
	// the workloads that carry it.
	ReplicasAnnotation = Prefix + "replicas"
	// AliasesAnnotation on the user's Ingress is how the controller asks admission: it names the backend Services to replace by
	// their alias Service, as service=alias separated by commas. Nobody else can change it.
	AliasesAnnotation = Prefix + "aliases"
	// ScalingAnnotation on a route slice is what the Service asks of the scaling of its workload, as JSON.
	ScalingAnnotation = Prefix + "scaling"
	// FailOpenAnnotation on a route slice says that it lists the real pods because no interceptor is ready.
	FailOpenAnnotation = Prefix + "fail-open"
	// UnprovenAnnotation on a route slice says that the interceptors' way to the pods is not proven: UnprovenYet while no pod
	// has been ready, and then, if it is blocked, why the app is restored.
	UnprovenAnnotation = Prefix + "unproven"
	// UnprovenYet is its value until there is a ready pod.
	UnprovenYet = "yet"
	// UnusedAnnotation on an alias Service says since when no Ingress names it, in RFC 3339.
	UnusedAnnotation = Prefix + "unused-since"
	// RoleAlias marks an alias Service.
	RoleAlias = "alias"
	// SinceAnnotation on a route slice or a ScaledObject says when restoring the app began, in RFC 3339.
	SinceAnnotation = Prefix + "restoring-since"
	// RestoringAnnotation on the controllers' Deployment has them restore every app until the time that it holds, in RFC 3339.
	// It is a time so that an interrupted uninstall expires by itself.
	RestoringAnnotation = Prefix + "restoring-until"

	// ManagedByLabel is on everything that we create.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is its value, and our field manager's name.
	ManagedBy = "scale-to-zero"
)

// DirectServiceName returns the name of the direct Service of a Service: at most 63 characters, as a Service's must be.
func DirectServiceName(service string) string { return bounded(service, "-direct", 63) }

// AliasServiceName returns the name of the alias Service of a Service: at most 63 characters, as a Service's must be.
func AliasServiceName(service string) string { return bounded(service, "-scale-to-zero", 63) }

// RouteSliceName returns the name of the route slice for an address type ("IPv4", "IPv6") of a Service, or of an alias
// Service.
func RouteSliceName(service, addressType string) string {
	return bounded(service, "-scale-to-zero-"+strings.ToLower(addressType), 253)
}

// ScaledObjectName returns the name of a workload's ScaledObject. KEDA names the HPA keda-hpa-<name>, which must fit
// into a label value, hence at most 54 characters (KEDA 2.21).
func ScaledObjectName(w api.Workload) string {
	return bounded(w.Name, "-"+strings.ToLower(w.Kind), 54)
}

// bounded joins name and suffix. If the result is longer than limit, it cuts the name and inserts a hash of all of it, so that
// two long names do not collide.
func bounded(name, suffix string, limit int) string {
	if len(name)+len(suffix) <= limit {
		return name + suffix
	}
	sum := sha256.Sum256([]byte(name))
	hash := "-" + hex.EncodeToString(sum[:])[:8]
	return strings.TrimRight(name[:limit-len(suffix)-len(hash)], "-.") + hash + suffix
}
