// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"crypto/sha256"
	"encoding/hex"
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
	ServiceLabel = Prefix + "service"
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
