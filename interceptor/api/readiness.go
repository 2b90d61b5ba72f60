// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
)

// Readiness is how an interceptor finds out by itself that a pod takes requests, before Kubernetes says so: by the pod's own probes.
type Readiness struct {
	// Probes are the probes of all containers, in the order in which the kubelet starts them: a container's startup probe comes before
	// its readiness probe. A pod takes requests when all have succeeded. There is at least one.
	Probes []Probe `json:"probes"`
	// Trust is how long a pod takes requests only because its probes succeed. By then, Kubernetes must have called it ready.
	Trust Duration `json:"trust"`
}

// Probe is one probe of a container: HTTP, gRPC, or neither, which only connects.
type Probe struct {
	// Startup is set for a startup probe, which has to succeed before the readiness probe begins.
	Startup bool       `json:"startup,omitempty"`
	HTTP    *HTTPProbe `json:"http,omitempty"`
	GRPC    *GRPCProbe `json:"grpc,omitempty"`
	// Port is the pod's port.
	Port    int32    `json:"port"`
	Timeout Duration `json:"timeout"`
	// Successes is how often in a row the probe has to succeed.
	Successes int32 `json:"successes"`
}

// HTTPProbe is a GET.
type HTTPProbe struct {
	// HTTPS is set if the probe uses TLS. The certificate is not verified.
	HTTPS bool `json:"https,omitempty"`
	// Path may have a query.
	Path    string   `json:"path"`
	Headers []Header `json:"headers,omitempty"`
}

// Header is a header field.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// GRPCProbe is a call of the gRPC health protocol.
type GRPCProbe struct {
	Service string `json:"service,omitempty"`
}

// Bounds of what an interceptor does for a pod that starts. The probes of an app that asks for more are left to the kubelet.
const (
	maxProbes       = 40 // of all containers of a pod
	maxProbeTimeout = time.Hour
	maxSuccesses    = 1000
	maxTrust        = 24 * time.Hour
	maxProbePath    = 4096 // bytes
	maxProbeHeaders = 64
	maxProbeHeader  = 4096 // bytes, of the name and the value
	maxProbeService = 1024 // bytes
)

// Check returns an error if r is not valid: an interceptor would not use it.
func (r *Readiness) Check() error {
	if r == nil {
		return nil
	}
	if len(r.Probes) == 0 || len(r.Probes) > maxProbes {
		return fmt.Errorf("%d readiness probes, want 1 to %d", len(r.Probes), maxProbes)
	}
	if r.Trust <= 0 {
		return fmt.Errorf("trust %s must be positive", r.Trust)
	}
	if time.Duration(r.Trust) > maxTrust {
		return fmt.Errorf("trust is %s, want at most %s", r.Trust, maxTrust)
	}
	for i, p := range r.Probes {
		if what := p.invalid(); what != "" {
			return fmt.Errorf("readiness probe %d has an invalid %s", i, what)
		}
	}
	return nil
}

// invalid returns the name of the first invalid field of p; empty if there is none.
func (p Probe) invalid() string {
	switch {
	case p.Port < 1 || p.Port > 65535:
		return "port"
	case p.Timeout <= 0 || time.Duration(p.Timeout) > maxProbeTimeout:
		return "timeout"
	case p.Successes < 1 || p.Successes > maxSuccesses:
		return "number of successes"
	case p.HTTP != nil && p.GRPC != nil:
		return "kind"
	case p.GRPC != nil && (len(p.GRPC.Service) > maxProbeService || !utf8.ValidString(p.GRPC.Service)):
		return "service"
	case p.HTTP == nil:
		return ""
	default:
		return p.HTTP.invalid()
	}
}

// invalid is Probe.invalid for the request.
func (g *HTTPProbe) invalid() string {
	switch {
	case !strings.HasPrefix(g.Path, "/") || len(g.Path) > maxProbePath || !utf8.ValidString(g.Path) ||
		strings.ContainsFunc(g.Path, unicode.IsControl):
		return "path"
	case len(g.Headers) > maxProbeHeaders:
		return "number of headers"
	}
	for _, h := range g.Headers {
		if !httpguts.ValidHeaderFieldName(h.Name) || !httpguts.ValidHeaderFieldValue(h.Value) || len(h.Name)+len(h.Value) > maxProbeHeader {
			return "header"
		}
	}
	return ""
}
