// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"

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

// maxProbes is how many probes the containers of a pod may have in total.
const maxProbes = 40

// check returns an error if r is not valid.
func (r *Readiness) check() error {
	if r == nil {
		return nil
	}
	if len(r.Probes) == 0 || len(r.Probes) > maxProbes {
		return fmt.Errorf("decoding routes: %d readiness probes, want 1 to %d", len(r.Probes), maxProbes)
	}
	if r.Trust <= 0 {
		return fmt.Errorf("decoding routes: trust %s must be positive", r.Trust)
	}
	for i, p := range r.Probes {
		if what := p.invalid(); what != "" {
			return fmt.Errorf("decoding routes: readiness probe %d has an invalid %s", i, what)
		}
	}
	return nil
}

// invalid returns the name of the first invalid field of p; empty if there is none.
func (p Probe) invalid() string {
	switch {
	case p.Port < 1 || p.Port > 65535:
		return "port"
	case p.Timeout <= 0:
		return "timeout"
	case p.Successes < 1:
		return "number of successes"
	case p.HTTP != nil && p.GRPC != nil:
		return "kind"
	case p.HTTP == nil:
		return ""
	case !strings.HasPrefix(p.HTTP.Path, "/"):
		return "path"
	}
	for _, h := range p.HTTP.Headers {
		if !httpguts.ValidHeaderFieldName(h.Name) || !httpguts.ValidHeaderFieldValue(h.Value) {
			return "header"
		}
	}
	return ""
}
