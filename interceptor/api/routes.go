// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package api is what the control plane and the data path share, and all that they share: the schema of the
// annotation by which the injector gives the interceptors their routes, and the protobufs by which interceptors
// talk to KEDA (externalscaler.proto) and to each other (peer.proto).
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

// RoleLabel marks the objects that the interceptors watch. Kubernetes copies a Service's labels onto the
// EndpointSlices that it keeps for it, so one label selector finds all three kinds.
const (
	RoleLabel = "scale-to-zero/role"

	// RoleRoute marks a route slice: the EndpointSlice that sends an opted-in Service's traffic to the interceptors.
	RoleRoute = "route"
	// RoleDirect marks a direct Service, and so its EndpointSlices, which list the real pods.
	RoleDirect = "direct"
	// RoleInterceptor marks the interceptors' own headless Service, and so its EndpointSlices: the peers.
	RoleInterceptor = "interceptor"
)

// RoutesAnnotation on a route slice holds a Routes as JSON. It is the single source of truth for the ports on which
// interceptors listen: the slice's own ports say only what is published at the moment.
const RoutesAnnotation = "scale-to-zero/routes"

// Protocols of a Port.
const (
	ProtocolAuto = "auto" // look at the first bytes
	ProtocolHTTP = "http" // HTTP/1.1, HTTP/2 without TLS, and upgrades
	ProtocolTCP  = "tcp"  // bytes
)

// Which of the browsers that wait for a start are shown a page meanwhile.
const (
	PageAuto   = "auto"   // those that open a page and have waited a little
	PageAlways = "always" // those that open a page, at once
	PageNever  = "never"  // none: they are held like everybody else
)

// Routes is everything that an interceptor knows of one opted-in Service. Its namespace is the slice's.
type Routes struct {
	// Service is the opted-in Service's name.
	Service string `json:"service"`
	// ServiceUID is its UID, for the events about it.
	ServiceUID string `json:"serviceUID"`
	// Direct is the name of the direct Service, in whose EndpointSlices the real pods are.
	Direct string `json:"direct"`
	// Workload is what is scaled.
	Workload Workload `json:"workload"`
	// Ports has an entry for each port of the Service, in its order.
	Ports []Port `json:"ports"`
	// Cooldown is how long the workload stays up after its last request.
	Cooldown Duration `json:"cooldown"`
	// NeverSleeps says that the workload is to keep replicas when it has no visits.
	NeverSleeps bool `json:"neverSleeps,omitempty"`
	// HoldTimeout is the longest that a request is held for a pod.
	HoldTimeout Duration `json:"holdTimeout"`
	// ClientAffinity says that each client address keeps to one pod, as the Service's sessionAffinity ClientIP asks.
	ClientAffinity bool `json:"clientAffinity,omitempty"`
	// AffinityCookie names the app's session cookie that keeps a client at one pod. AffinityAuto uses only a cookie of the
	// interceptors' own; empty uses no cookie.
	AffinityCookie string `json:"affinityCookie,omitempty"`
	// IgnorePaths are the paths of requests that neither wake nor count; one that ends in * stands for all that begin so.
	IgnorePaths []string `json:"ignorePaths,omitempty"`
	// IgnoreAgents are how the User-Agents of such requests begin, besides those of probes and scrapers that the interceptors
	// know. After a * it may be any of the words in it that begins so.
	IgnoreAgents []string `json:"ignoreAgents,omitempty"`
	// CountKnownAgents says that those probes and scrapers count and wake like everybody.
	CountKnownAgents bool `json:"countKnownAgents,omitempty"`
	// WaitingPage is one of the Page constants; empty is PageAuto.
	WaitingPage string `json:"waitingPage,omitempty"`
	// Reach is how browsers come to the Service; nil is not known.
	Reach *Reach `json:"reach,omitempty"`
	// WakeWith names opted-in Services of the same namespace whose workloads wake together with this one's, and do not sleep while
	// it is in use.
	WakeWith []string `json:"wakeWith,omitempty"`
	// Readiness is how interceptors find out that a pod takes requests; nil is by Kubernetes' word alone.
	Readiness *Readiness `json:"readiness,omitempty"`
	// Retiring says that the Service is being restored: requests are still served, but the workload is no longer
	// woken or put to sleep for them, since the injector restores it by itself.
	Retiring bool `json:"retiring,omitempty"`
	// Gone says that no pod will come any more, and why, for visitors to read. Requests that are held for one fail at once.
	Gone string `json:"gone,omitempty"`
}

// Reach is how browsers come to a Service, as far as Kubernetes knows: programs in the cluster may send their headers on.
type Reach struct {
	// Direct says that a load balancer, a node port or an external address leads to it without a proxy.
	Direct bool `json:"direct,omitempty"`
	// Hosts are those for which Ingresses lead to it, some of them as in *.example.com. Empty is not known, or any.
	Hosts []string `json:"hosts,omitempty"`
	// Inside are its addresses in the cluster.
	Inside []string `json:"inside,omitempty"`
}

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
	APIVersion string `json:"apiVersion"` // group/version; apps/v1 for what Kubernetes has built in
	Kind       string `json:"kind"`       // Deployment, StatefulSet, or any with a scale subresource
	Name       string `json:"name"`
	UID        string `json:"uid"`
	// Resource is what the API server calls the kind, as in rollouts. Empty for Deployment and StatefulSet.
	Resource string `json:"resource,omitempty"`
}

// String is Kind/name, or Kind.group/name for a kind that is not of group apps: as users write it.
func (w Workload) String() string {
	group, _, found := strings.Cut(w.APIVersion, "/")
	if !found || group == "apps" {
		return w.Kind + "/" + w.Name
	}
	return w.Kind + "." + group + "/" + w.Name
}

// Port is one route.
type Port struct {
	// Name is the Service port's name; empty when the Service has one unnamed port. The direct Service's
	// EndpointSlices carry the same name.
	Name string `json:"name,omitempty"`
	// Port is the Service's port, for messages.
	Port int32 `json:"port"`
	// Listen is the port on which every interceptor listens for this route, and for no other.
	Listen int32 `json:"listen"`
	// Protocol is one of the Protocol constants.
	Protocol string `json:"protocol"`
	// ServerFirst says that the app's server has turned out to speak first on a port of ProtocolAuto. The interceptors learn
	// it; it is kept here for them.
	ServerFirst bool `json:"serverFirst,omitempty"`
	// ProxyProtocol says that each connection to a pod begins with a header of the PROXY protocol, version 2.
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

// DecodeRoutes parses the value of RoutesAnnotation. The error says what is wrong with which field; a slice whose
// annotation does not decode is left out by the interceptors, and the injector writes it anew.
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
	if err := r.Readiness.check(); err != nil {
		return err
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
	for _, p := range r.IgnorePaths {
		if !IsIgnorePath(p) {
			return fmt.Errorf("decoding routes: ignored path %q is none", p)
		}
	}
	for _, a := range r.IgnoreAgents {
		if !IsIgnoreAgent(a) {
			return fmt.Errorf("decoding routes: ignored agent %q is none", a)
		}
	}
	return nil
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
