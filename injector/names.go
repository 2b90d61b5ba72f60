// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// OptInLabel opts a Service, an Ingress or a Namespace in ("true") or out ("false"). EnabledAnnotation does the same.
const OptInLabel = "scale-to-zero"

// Prefix begins all our annotations and labels except OptInLabel.
const Prefix = "scale-to-zero/"

const (
	// SentinelKey is the one key that admission adds to the selector of an injected Service. No pod carries it, so Kubernetes empties
	// its own EndpointSlices of the Service, and the original selector stays readable in place.
	SentinelKey = Prefix + "intercepted"
	// SentinelValue is the value of SentinelKey.
	SentinelValue = "true"

	// RedirectAnnotation on the user's Service is the controller's request to admission. The value RedirectReady asks for the
	// sentinel; without the annotation, admission removes the sentinel. Only the controller can set it.
	RedirectAnnotation = Prefix + "route"
	// RedirectReady is the only value of RedirectAnnotation.
	RedirectReady = "ready"

	// MirrorLabel is on the NetworkPolicies of the interceptors' pods. Its value is the base policy's name.
	MirrorLabel = Prefix + "network-policies"

	// ServiceLabel on our objects names the Service for which they were made.
	ServiceLabel = api.ServiceLabel
	// ReplicasAnnotation on a workload and its ScaledObject holds the replica count that the workload had before the injection. KEDA's
	// own memory begins when it first looks, when the app may be asleep, and KEDA may not be installed. We scale the workloads that
	// carry this annotation.
	ReplicasAnnotation = Prefix + "replicas"
	// AutoscalerAnnotation on a workload that we scale names what somebody else has set up to scale it, as Kind/name. There is none unless
	// the workload has ReplicasAnnotation.
	AutoscalerAnnotation = Prefix + "autoscaler"
	// TriggerAnnotation on somebody else's ScaledObject is the controller's request to admission: it has our trigger, as JSON. Without the
	// annotation, admission removes the trigger. Only the controller can set it.
	TriggerAnnotation = Prefix + "trigger"
	// AliasesAnnotation on the user's Ingress is the controller's request to admission. It lists the backend Services that their alias
	// Service has to replace, as service=alias separated by commas. Only the controller can set it.
	AliasesAnnotation = Prefix + "aliases"
	// ScalingAnnotation on a route slice says how the Service wants its workload to be scaled, as JSON.
	ScalingAnnotation = Prefix + "scaling"
	// FailOpenAnnotation on a route slice says that the slice lists the real pods because no interceptor is ready.
	FailOpenAnnotation = Prefix + "fail-open"
	// UnprovenAnnotation on a route slice says that it is not proven that the interceptors can reach the pods. Its value is
	// UnprovenYet as long as no pod has been ready. If the way then turns out to be blocked, the value is the reason why the app is
	// restored.
	UnprovenAnnotation = Prefix + "unproven"
	// UnprovenYet is the value of UnprovenAnnotation until a pod is ready.
	UnprovenYet = "yet"
	// UnusedAnnotation on an alias Service says since when no Ingress uses it, in RFC 3339.
	UnusedAnnotation = Prefix + "unused-since"
	// RoleAlias marks an alias Service.
	RoleAlias = "alias"
	// SinceAnnotation on a route slice or a ScaledObject says when the restoration of the app began, in RFC 3339.
	SinceAnnotation = Prefix + "restoring-since"
	// RestoringAnnotation on the controllers' Deployment makes them restore every app until the given time, in RFC 3339. The time
	// limit makes an interrupted uninstall expire by itself.
	RestoringAnnotation = Prefix + "restoring-until"

	// ManagedByLabel is on everything that we create.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of ManagedByLabel, and the name of our field manager.
	ManagedBy = api.ManagedBy
)

// DirectServiceName returns the name of the direct Service of a Service.
func DirectServiceName(service string) string { return api.DirectServiceName(service) }

// AliasServiceName returns the name of the alias Service of a Service.
func AliasServiceName(service string) string { return api.AliasServiceName(service) }

// RouteSliceName returns the name of the route slice for an address type ("IPv4", "IPv6") of a Service, or of an alias Service.
func RouteSliceName(service, addressType string) string {
	return api.RouteSliceName(service, addressType)
}

// ScaledObjectName returns the name of a workload's ScaledObject. KEDA names the HPA keda-hpa-<name>, which must fit
// into a label value, hence at most 54 characters (KEDA 2.21).
func ScaledObjectName(w api.Workload) string {
	return api.Bounded(w.Name, "-"+strings.ToLower(w.Kind), 54)
}
