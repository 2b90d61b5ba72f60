// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package api is everything that the control plane and the data path share: the schema of the annotation by which the injector gives
// the interceptors their routes, and the protobufs by which interceptors talk to KEDA (externalscaler.proto) and to each other
// (peer.proto).
//
// It imports nothing of this project and nothing of Kubernetes.
package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// RoleLabel marks the objects that the interceptors watch. Kubernetes copies a Service's labels to its EndpointSlices, so one label
// selector finds all three kinds.
const (
	RoleLabel = "scale-to-zero/role"

	// RoleRoute marks a route slice: the EndpointSlice that sends an opted-in Service's traffic to the interceptors.
	RoleRoute = "route"
	// RoleDirect marks a direct Service and therefore its EndpointSlices, which list the real pods.
	RoleDirect = "direct"
	// RoleInterceptor marks the interceptors' own headless Service and therefore its EndpointSlices, which list the peers.
	RoleInterceptor = "interceptor"
)

// RoutesAnnotation on a route slice holds a Routes as JSON. It is the single source of truth for the ports on which interceptors
// listen. The slice's own ports say only what is published at present.
const RoutesAnnotation = "scale-to-zero/routes"

// Protocols of a Port.
const (
	ProtocolAuto = "auto" // decide by the first bytes
	ProtocolHTTP = "http" // HTTP/1.1, HTTP/2 without TLS, and upgrades
	ProtocolTCP  = "tcp"  // plain bytes
)

// Which browsers see a page while they wait for a start.
const (
	PageAuto   = "auto"   // those that open a page and have waited a little
	PageAlways = "always" // those that open a page, at once
	PageNever  = "never"  // none: browsers are held like all other clients
)

// Routes is everything that an interceptor knows about one opted-in Service. Its namespace is that of the slice.
type Routes struct {
	// Service is the opted-in Service's name.
	Service string `json:"service"`
	// ServiceUID is the Service's UID, for the events about it.
	ServiceUID string `json:"serviceUID"`
	// Direct is the name of the direct Service, whose EndpointSlices list the real pods.
	Direct string `json:"direct"`
	// Workload is what is scaled.
	Workload Workload `json:"workload"`
	// Ports has an entry for each port of the Service, in its order.
	Ports []Port `json:"ports"`
	// Cooldown is how long the workload stays up after its last request.
	Cooldown Duration `json:"cooldown"`
	// NeverSleeps is set if the workload must keep replicas even without visits.
	NeverSleeps bool `json:"neverSleeps,omitempty"`
	// HoldTimeout is the longest that a request is held for a pod.
	HoldTimeout Duration `json:"holdTimeout"`
	// ClientAffinity makes each client address stay at one pod, as the Service's sessionAffinity ClientIP asks.
	ClientAffinity bool `json:"clientAffinity,omitempty"`
	// AffinityCookie names the app's session cookie, which keeps a client at one pod. With AffinityAuto the interceptors use only a
	// cookie of their own. Empty means no cookie.
	AffinityCookie string `json:"affinityCookie,omitempty"`
	Ignores
	// WaitingPage is one of the Page constants; empty means PageAuto.
	WaitingPage string `json:"waitingPage,omitempty"`
	// FullDetails is set if visitors may read why the app cannot start, with the names of images, Secrets and quotas. Otherwise they
	// learn only the kind of failure.
	FullDetails bool `json:"fullDetails,omitempty"`
	// Reach says how browsers reach the Service; nil if that is not known.
	Reach *Reach `json:"reach,omitempty"`
	// MaxPendingPerPod is how many requests a pod may have at a time; 0 is no limit.
	MaxPendingPerPod int32 `json:"maxPendingPerPod,omitempty"`
	// WakeWith names opted-in Services of the same namespace whose workloads wake together with this one's, and do not sleep while
	// it is in use.
	WakeWith []string `json:"wakeWith,omitempty"`
	// NoLearning is set if the workload must neither wake others, nor be woken with others, because one was seen to call the other.
	NoLearning bool `json:"noLearning,omitempty"`
	// CountsRate makes interceptors count how many requests arrive each second, since the workload is scaled by that.
	CountsRate bool `json:"countsRate,omitempty"`
	// Awake is when the workload is kept awake, as ParseWindows reads it; empty is never.
	Awake string `json:"awake,omitempty"`
	// Readiness is how interceptors find out that a pod takes requests; nil is by Kubernetes' word alone.
	Readiness *Readiness `json:"readiness,omitempty"`
	// Busy is how interceptors find out whether the app does work although it has no requests; nil if only requests count.
	Busy *Busy `json:"busy,omitempty"`
	// Retiring is set while the Service is being restored. Requests are still served, but the interceptors neither wake the workload nor
	// put it to sleep, because the injector restores it.
	Retiring bool `json:"retiring,omitempty"`
	// Gone says, for visitors to read, why no pod will come any more; empty if one may. Held requests then fail at once.
	Gone string `json:"gone,omitempty"`
}

// Reach says how browsers reach a Service, as far as Kubernetes knows. With it, an interceptor recognizes requests of programs in the
// cluster that pass on a browser's headers.
type Reach struct {
	// Direct is set if browsers reach the Service without a proxy, by a load balancer, a node port or an external address.
	Direct bool `json:"direct,omitempty"`
	// Hosts are the hosts for which Ingresses route to the Service. They may have a wildcard, as in *.example.com. Empty means unknown
	// or any.
	Hosts []string `json:"hosts,omitempty"`
	// Inside are the Service's addresses in the cluster.
	Inside []string `json:"inside,omitempty"`
}

// MaxPendingPerPod is the highest Routes.MaxPendingPerPod.
const MaxPendingPerPod = 100_000

// MaxWakeWith is how many Services a Service may name in Routes.WakeWith.
const MaxWakeWith = 20

// IsServiceName says whether name can be a Service's: a label of RFC 1123.
func IsServiceName(name string) bool {
	for i, c := range []byte(name) {
		inside := i > 0 && i < len(name)-1
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || !inside) {
			return false
		}
	}
	return name != "" && len(name) <= 63
}

// Workload names what is scaled, in the namespace of the Service.
type Workload struct {
	APIVersion string `json:"apiVersion"` // group/version; apps/v1 for built-in kinds
	Kind       string `json:"kind"`       // Deployment, StatefulSet, or any kind with a scale subresource
	Name       string `json:"name"`
	UID        string `json:"uid"`
	// Resource is the API server's resource name of the kind, such as rollouts. Empty for Deployment and StatefulSet.
	Resource string `json:"resource,omitempty"`
}

// String returns Kind/name or, for a kind outside group apps, Kind.group/name, in the format that users write.
func (w Workload) String() string {
	group, _, found := strings.Cut(w.APIVersion, "/")
	if !found || group == "apps" {
		return w.Kind + "/" + w.Name
	}
	return w.Kind + "." + group + "/" + w.Name
}

// Port is one route.
type Port struct {
	// Name is the name of the Service's port; empty if the Service has one unnamed port. The direct Service's EndpointSlices have the
	// same name.
	Name string `json:"name,omitempty"`
	// Port is the Service's port, for messages.
	Port int32 `json:"port"`
	// Listen is the port on which every interceptor listens for this route, and for no other.
	Listen int32 `json:"listen"`
	// Protocol is one of the Protocol constants.
	Protocol string `json:"protocol"`
	// ServerFirst is set if the app's server has turned out to speak first on a port of ProtocolAuto. The interceptors learn that; this
	// field keeps it for them.
	ServerFirst bool `json:"serverFirst,omitempty"`
	// SpokeHTTP is set if the app has answered requests on a port of ProtocolAuto, so that it is one of HTTP from then on. It is learned
	// and kept like ServerFirst.
	SpokeHTTP bool `json:"spokeHTTP,omitempty"`
	// ProxyProtocol makes each connection to a pod begin with a PROXY protocol header, version 2.
	ProxyProtocol bool `json:"proxyProtocol,omitempty"`
}

// Encode returns r as the value of RoutesAnnotation.
func (r Routes) Encode() (string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encoding routes of service %q: %w", r.Service, err)
	}
	return string(b), nil
}

// DecodeRoutes parses the value of RoutesAnnotation. The error says which field is wrong, and how. The interceptors omit a slice
// whose annotation does not decode, and the injector writes it again.
func DecodeRoutes(value string) (Routes, error) {
	var r Routes
	if value == "" {
		return r, errors.New("decoding routes: the annotation is missing or empty")
	}
	if err := json.Unmarshal([]byte(value), &r); err != nil {
		return r, fmt.Errorf("decoding routes: %w", err)
	}
	switch {
	case r.Service == "":
		return r, errors.New("decoding routes: service is empty")
	case r.Direct == "":
		return r, errors.New("decoding routes: direct is empty")
	case r.Workload.Kind == "" || r.Workload.Name == "":
		return r, fmt.Errorf("decoding routes: workload %q lacks a kind or a name", r.Workload)
	case r.Cooldown <= 0 || r.HoldTimeout <= 0:
		return r, fmt.Errorf("decoding routes: cooldown %s and holdTimeout %s must be positive", r.Cooldown, r.HoldTimeout)
	case len(r.Ports) == 0:
		return r, errors.New("decoding routes: no ports")
	}
	return r, r.checkOptions()
}

// checkOptions says what is wrong with the parts that may be left out, and with the ports.
func (r *Routes) checkOptions() error {
	for _, p := range r.Ports {
		if err := p.check(); err != nil {
			return err
		}
	}
	if err := errors.Join(r.Readiness.check(), r.Busy.check(r.Ports)); err != nil {
		return err
	}
	if n := r.MaxPendingPerPod; n < 0 || n > MaxPendingPerPod {
		return fmt.Errorf("decoding routes: maxPendingPerPod is %d, want at most %d, or 0 for no limit", n, MaxPendingPerPod)
	}
	if len(r.WakeWith) > MaxWakeWith || slices.ContainsFunc(r.WakeWith, func(name string) bool { return !IsServiceName(name) }) {
		return fmt.Errorf("decoding routes: wakeWith is %q, want at most %d names of Services", r.WakeWith, MaxWakeWith)
	}
	switch r.WaitingPage {
	case "", PageAuto, PageAlways, PageNever:
	default:
		return fmt.Errorf("decoding routes: waiting page is %q, want auto, always or never", r.WaitingPage)
	}
	if r.AffinityCookie != "" && !IsCookieName(r.AffinityCookie) {
		return fmt.Errorf("decoding routes: affinity cookie is %q, which cannot be the name of a cookie", r.AffinityCookie)
	}
	if r.Awake != "" {
		if _, err := ParseWindows(r.Awake); err != nil {
			return fmt.Errorf("decoding routes: awake: %w", err)
		}
	}
	return r.checkIgnores()
}

func (p Port) check() error {
	if p.Listen < 1 || p.Listen > 65535 {
		return fmt.Errorf("decoding routes: port %q listens on %d, which is no port", p.Name, p.Listen)
	}
	switch p.Protocol {
	case ProtocolAuto, ProtocolHTTP, ProtocolTCP:
		return nil
	default:
		return fmt.Errorf("decoding routes: port %q has protocol %q, want auto, http or tcp", p.Name, p.Protocol)
	}
}

// Duration is a time.Duration that reads and writes itself as text ("5m0s"), so that a person can read the annotation.
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("parsing duration: %w", err)
	}
	*d = Duration(v)
	return nil
}
