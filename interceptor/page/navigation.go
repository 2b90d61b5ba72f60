// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import "strings"

// Request is what distinguishes a browser that opens a page from other clients.
type Request struct {
	Method string
	// Target is the path with its query, or the whole URL, and Host the host as the client names it.
	Target, Host string
	// HasBody and HasUpgrade say that the request has these.
	HasBody, HasUpgrade bool
	// Value returns the value of a header field by its name in lower case, the first if there are more, or nothing.
	Value func(name string) string
}

// IsNavigation says that r opens a page in a window, tab or frame, so that an HTML page is a good answer whatever was asked
// for. In doubt it does not: the client gets what it asked for.
//
// Browsers say what they do by Sec-Fetch-Mode and -Dest, but not to plain http. There only Accept shows it: only
// who opens a page names HTML, which the fetches of scripts do not by themselves.
func IsNavigation(r Request) bool {
	if r.Method != "GET" || r.HasBody || r.HasUpgrade {
		return false
	}
	for _, name := range [...]string{"range", "x-requested-with", "hx-request", "x-moz"} {
		if r.Value(name) != "" {
			return false
		}
	}
	// A page that is fetched or rendered in advance is not looked at yet.
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
