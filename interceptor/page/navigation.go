// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import "strings"

// Request is the part of a request that distinguishes a browser that opens a page from other clients.
type Request struct {
	Method string
	// Target is the path with its query, or the whole URL. Host is the host as the client names it.
	Target, Host string
	// HasBody and HasUpgrade are set if the request has a body or asks for an upgrade.
	HasBody, HasUpgrade bool
	// Value returns the value of the first header field with that name, which is in lower case; empty if there is none.
	Value func(name string) string
}

// IsNavigation reports whether r opens a page in a window, tab or frame, so that an HTML page is a good answer whatever was
// requested. If in doubt it returns false: the client gets what it requested.
//
// Browsers show what they do by Sec-Fetch-Mode and Sec-Fetch-Dest, but not over plain http. There only Accept shows it: a navigation
// names HTML, which a script's fetch does not do by default.
func IsNavigation(r Request) bool {
	if r.Method != "GET" || r.HasBody || r.HasUpgrade {
		return false
	}
	for _, name := range [...]string{"range", "x-requested-with", "hx-request", "x-moz"} {
		if r.Value(name) != "" {
			return false
		}
	}
	// Nobody looks yet at a page that is fetched or rendered in advance.
	if strings.Contains(r.Value("sec-purpose")+r.Value("purpose"), "prefetch") {
		return false
	}
	if mode := r.Value("sec-fetch-mode"); mode != "" {
		dest := r.Value("sec-fetch-dest")
		return mode == "navigate" && (dest == "document" || dest == "iframe" || dest == "frame")
	}
	accept := strings.ToLower(r.Value("accept"))
	return strings.Contains(accept, "text/html") || strings.Contains(accept, "application/xhtml+xml")
}
