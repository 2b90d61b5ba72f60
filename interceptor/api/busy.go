// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Busy says how interceptors find out whether an app without requests does work, and so must not sleep. At least one of Request and
// CPU is set.
type Busy struct {
	Request *BusyRequest `json:"request,omitempty"`
	// CPU is how much CPU the pods together use at most while the app is not busy, in thousandths of a CPU; 0 if that does not matter.
	CPU int64 `json:"cpu,omitempty"`
	// Pods is the label selector of the workload's pods. It is set if CPU is.
	Pods string `json:"pods,omitempty"`
}

// BusyRequest is what the pods are asked.
type BusyRequest struct {
	Method string `json:"method"` // GET, HEAD or POST
	Path   string `json:"path"`   // may have a query
	// Port is a port of the Service that does not speak only bytes: Port.Port.
	Port int32 `json:"port"`
	// When is a CEL expression that the answer meets while the app is busy.
	When string `json:"when"`
}

const (
	// MaxBusyWhen bounds BusyRequest.When, in bytes.
	MaxBusyWhen = 1024
	// MaxBusyCPU bounds Busy.CPU. It catches 2000 where 2000m was meant.
	MaxBusyCPU = 1000 * 1000

	maxBusyPath = 1024
	maxSelector = 4096
)

// IsBusyMethod reports whether an app may be asked with this method.
func IsBusyMethod(m string) bool { return m == "GET" || m == "HEAD" || m == "POST" }

// IsBusyPath reports whether p is a path, perhaps with a query, as the line of a request has it. It cannot name another host.
func IsBusyPath(p string) bool {
	if !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || len(p) > maxBusyPath ||
		strings.IndexFunc(p, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }) >= 0 {
		return false
	}
	path, _, _ := strings.Cut(p, "?")
	_, err := url.PathUnescape(path)
	return err == nil
}

// check returns an error if b is not valid on a Service with these ports.
func (b *Busy) check(ports []Port) error {
	if b == nil {
		return nil
	}
	if r := b.Request; r != nil {
		if !IsBusyMethod(r.Method) || !IsBusyPath(r.Path) {
			return fmt.Errorf("the app cannot be asked %q whether it is busy", r.Method+" "+r.Path)
		}
		if !slices.ContainsFunc(ports, func(p Port) bool { return p.Port == r.Port && p.Protocol != ProtocolTCP }) {
			return fmt.Errorf("the app cannot be asked on port %d whether it is busy", r.Port)
		}
		if r.When == "" || len(r.When) > MaxBusyWhen || !utf8.ValidString(r.When) {
			return fmt.Errorf("the app is busy when %q, want at most %d bytes of text", r.When, MaxBusyWhen)
		}
	}
	if b.CPU < 0 || b.CPU > MaxBusyCPU || b.CPU == 0 && b.Request == nil {
		return fmt.Errorf("the app is busy with more than %dm CPU, want 1m to %dm", b.CPU, MaxBusyCPU)
	}
	if b.CPU > 0 && !isSelector(b.Pods) {
		return fmt.Errorf("%q selects no pods", b.Pods)
	}
	return nil
}

// isSelector reports whether s may be a label selector, and is not the one that selects all pods. The API server parses it.
func isSelector(s string) bool {
	return s != "" && len(s) <= maxSelector && strings.Trim(s, " ,") != "" &&
		strings.IndexFunc(s, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_./=!,() ", c)
		}) < 0
}
