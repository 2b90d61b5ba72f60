// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"strconv"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Request is what an app is asked.
type Request struct {
	// Port is the name or the number of a port of the Service; empty if it is not said.
	Port string
	// Method is GET, HEAD or POST.
	Method string
	// Path may have a query.
	Path string
}

// RequestAllowed says what ParseRequest reads.
const RequestAllowed = "METHOD /path with GET, HEAD or POST, as in GET /computer/api/json; " +
	"PORT=METHOD /path for another port than the first that speaks HTTP, by name or number; " +
	"at most 1024 printable ASCII characters, without a fragment"

// ParseRequest reads the annotation's value: METHOD /path or PORT=METHOD /path.
func ParseRequest(value string) (_ Request, ok bool) {
	var r Request
	head, path, found := strings.Cut(value, " ")
	if !found {
		return r, false
	}
	r.Method, r.Path = head, path
	if port, method, named := strings.Cut(head, "="); named {
		if !isPort(port) {
			return Request{}, false
		}
		r.Port, r.Method = port, method
	}
	if !api.IsBusyMethod(r.Method) || !api.IsBusyPath(r.Path) {
		return Request{}, false
	}
	return r, true
}

// isPort reports whether s can be the number or the name of a Service's port.
func isPort(s string) bool {
	if strings.Trim(s, "0123456789") == "" {
		n, err := strconv.ParseUint(s, 10, 16)
		return err == nil && n > 0 && s[0] != '0'
	}
	return api.IsServiceName(s)
}
