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
	"net/netip"
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

const (
	// MaxPendingPerPod is the highest Routes.MaxPendingPerPod.
	MaxPendingPerPod = 100_000
	// MaxPorts is how many ports a Service may have. Every interceptor opens a listener for each.
	MaxPorts = 50
	// MinListen is the lowest Port.Listen. Lower ports may need a privilege.
	MinListen = 1024
)

// Bounds of Routes.Cooldown and Routes.HoldTimeout.
const (
	MinCooldown    = time.Second
	MaxCooldown    = 30 * 24 * time.Hour
	MinHoldTimeout = time.Second
	MaxHoldTimeout = time.Hour
)

const (
	// maxAnnotation is how large the API server lets all annotations of an object be together.
	maxAnnotation = 256 << 10
	// maxGone bounds Routes.Gone, which has the name of a workload.
	maxGone = 1000
)

// MaxWakeWith is how many Services a Service may name in Routes.WakeWith.
const MaxWakeWith = 20

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
//
// Whoever may write EndpointSlices may write this annotation too. So each field has to be as the injector writes it: names that are
// safe in a path of the API server, counts and durations within the settings' bounds, ports that are distinct.
func DecodeRoutes(value string) (Routes, error) {
	var r Routes
	if value == "" {
		return r, errors.New("decoding routes: the annotation is missing or empty")
	}
	if len(value) > maxAnnotation {
		return r, fmt.Errorf("decoding routes: the annotation has %d bytes, want at most %d", len(value), maxAnnotation)
	}
	if err := json.Unmarshal([]byte(value), &r); err != nil {
		return r, fmt.Errorf("decoding routes: %w", err)
	}
	if err := errors.Join(r.checkNames(), r.Workload.check(), r.checkPorts(), r.checkOptions()); err != nil {
		return r, fmt.Errorf("decoding routes: %w", err)
	}
	return r, nil
}

// checkNames says what is wrong with what every Service has.
func (r *Routes) checkNames() error {
	cooldown, hold := time.Duration(r.Cooldown), time.Duration(r.HoldTimeout)
	switch {
	case r.Service == "":
		return errors.New("service is empty")
	case !IsServiceName(r.Service):
		return fmt.Errorf("service is %q, which cannot be the name of a Service", r.Service)
	case !isUID(r.ServiceUID):
		return fmt.Errorf("serviceUID is %q, which is no UID", r.ServiceUID)
	case r.Direct == "":
		return errors.New("direct is empty")
	case r.Direct != DirectServiceName(r.Service):
		return fmt.Errorf("direct is %q, want %q", r.Direct, DirectServiceName(r.Service))
	case cooldown <= 0 || hold <= 0:
		return fmt.Errorf("cooldown %s and holdTimeout %s must be positive", r.Cooldown, r.HoldTimeout)
	case cooldown < MinCooldown || cooldown > MaxCooldown:
		return fmt.Errorf("cooldown is %s, want %s to %s", r.Cooldown, MinCooldown, MaxCooldown)
	case hold < MinHoldTimeout || hold > MaxHoldTimeout:
		return fmt.Errorf("holdTimeout is %s, want %s to %s", r.HoldTimeout, MinHoldTimeout, MaxHoldTimeout)
	case !isLine(r.Gone, maxGone):
		return fmt.Errorf("gone is %q, want one line of at most %d characters", r.Gone, maxGone)
	}
	return nil
}

// check says what is wrong with a workload. Its names become part of paths of the API server.
func (w Workload) check() error {
	if w.Kind == "" || w.Name == "" {
		return fmt.Errorf("workload %q lacks a kind or a name", w)
	}
	group, version, found := strings.Cut(w.APIVersion, "/")
	switch {
	case !isKind(w.Kind):
		return fmt.Errorf("workload has kind %q, which is none", w.Kind)
	case !isSubdomain(w.Name):
		return fmt.Errorf("workload has name %q, which is none", w.Name)
	case !found || !isSubdomain(group) || !isLabel(version):
		return fmt.Errorf("workload has apiVersion %q, want GROUP/VERSION", w.APIVersion)
	case w.UID != "" && !isUID(w.UID):
		return fmt.Errorf("workload has uid %q, which is none", w.UID)
	case w.Resource != "" && !isResource(w.Resource):
		return fmt.Errorf("workload has resource %q, want the plural of its kind", w.Resource)
	}
	return nil
}

// checkPorts says what is wrong with the ports.
func (r *Routes) checkPorts() error {
	if len(r.Ports) == 0 {
		return errors.New("no ports")
	}
	if len(r.Ports) > MaxPorts {
		return fmt.Errorf("%d ports, want at most %d", len(r.Ports), MaxPorts)
	}
	names, listens := map[string]bool{}, map[int32]bool{}
	for _, p := range r.Ports {
		if err := p.check(); err != nil {
			return err
		}
		if names[p.Name] || p.Name == "" && len(r.Ports) > 1 {
			return fmt.Errorf("two ports are named %q", p.Name)
		}
		if listens[p.Listen] {
			return fmt.Errorf("two ports listen on %d", p.Listen)
		}
		names[p.Name], listens[p.Listen] = true, true
	}
	return nil
}

// checkOptions says what is wrong with the parts that may be left out.
func (r *Routes) checkOptions() error {
	if err := errors.Join(r.Readiness.Check(), r.Busy.check(r.Ports), r.Reach.check()); err != nil {
		return err
	}
	if n := r.MaxPendingPerPod; n < 0 || n > MaxPendingPerPod {
		return fmt.Errorf("maxPendingPerPod is %d, want at most %d, or 0 for no limit", n, MaxPendingPerPod)
	}
	if len(r.WakeWith) > MaxWakeWith || slices.ContainsFunc(r.WakeWith, func(name string) bool { return !IsServiceName(name) }) {
		return fmt.Errorf("wakeWith is %q, want at most %d names of Services", r.WakeWith, MaxWakeWith)
	}
	switch r.WaitingPage {
	case "", PageAuto, PageAlways, PageNever:
	default:
		return fmt.Errorf("waiting page is %q, want auto, always or never", r.WaitingPage)
	}
	if r.AffinityCookie != "" && !IsCookieName(r.AffinityCookie) {
		return fmt.Errorf("affinity cookie is %q, which cannot be the name of a cookie", r.AffinityCookie)
	}
	if r.Awake != "" {
		if _, err := ParseWindows(r.Awake); err != nil {
			return fmt.Errorf("awake: %w", err)
		}
	}
	return r.checkIgnores()
}

func (p Port) check() error {
	switch {
	case p.Name != "" && !isLabel(p.Name):
		return fmt.Errorf("a port is named %q, which is no label", p.Name)
	case p.Port < 1 || p.Port > 65535:
		return fmt.Errorf("port %q has number %d, which is none", p.Name, p.Port)
	case p.Listen < MinListen || p.Listen > 65535:
		return fmt.Errorf("port %q listens on %d, want %d to 65535", p.Name, p.Listen, MinListen)
	}
	switch p.Protocol {
	case ProtocolAuto, ProtocolHTTP, ProtocolTCP:
		return nil
	default:
		return fmt.Errorf("port %q has protocol %q, want auto, http or tcp", p.Name, p.Protocol)
	}
}

// check says what is wrong with r.
func (r *Reach) check() error {
	if r == nil {
		return nil
	}
	for _, host := range r.Hosts {
		if !isHost(host) {
			return fmt.Errorf("%q is no host of an Ingress", host)
		}
	}
	for _, address := range r.Inside {
		if _, err := netip.ParseAddr(address); err != nil {
			return fmt.Errorf("%q is no IP address", address)
		}
	}
	return nil
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
