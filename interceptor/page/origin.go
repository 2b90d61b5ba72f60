// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"net"
	"slices"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A program in the cluster may copy a browser's headers into a request of its own: nginx's auth_request, Traefik's ForwardAuth, a
// backend for a frontend. It would take the waiting page for the app's answer and fail its visitor. Two things distinguish such a
// request from a browser's: the headers that an ingress controller adds when it asks for authentication, and the way of the request.
// A browser comes through a proxy that says so and passes the Host on, or directly to a load balancer or node port. A program in the
// cluster uses a name of the Service that only the cluster knows.

// Front is the place where an app's pages are shown.
type Front struct {
	Namespace, Service string
	// Reach says how browsers reach the Service; nil if that is not known.
	Reach *api.Reach
}

// IsSubrequest reports whether a proxy makes r to ask whether another request is allowed.
func IsSubrequest(r Request) bool {
	for _, name := range [...]string{"x-original-method", "x-forwarded-method", "x-auth-request-redirect", "x-sent-from"} {
		if r.Value(name) != "" {
			return true
		}
	}
	// Some proxies send the original URL with every request, others only with subrequests.
	for _, name := range [...]string{"x-original-url", "x-original-uri", "x-forwarded-uri"} {
		if value := r.Value(name); value != "" && pathOf(value) != pathOf(r.Target) {
			return true
		}
	}
	return false
}

// IsFromBrowser reports whether r may have come from a browser to the app of f. If in doubt it returns false.
func (f Front) IsFromBrowser(r Request) bool {
	if f.Reach == nil {
		return true
	}
	host := hostname(r.Host)
	known := matches(host, f.Reach.Hosts)
	switch {
	case f.isInside(host) && !known:
		return false
	case f.Reach.Direct:
		return true
	case len(f.Reach.Hosts) > 0 && !known:
		return false
	default:
		return isProxied(r)
	}
}

// isProxied reports whether a proxy has passed r on.
func isProxied(r Request) bool {
	for _, name := range [...]string{"x-forwarded-for", "forwarded", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"} {
		if r.Value(name) != "" {
			return true
		}
	}
	return false
}

// isInside reports whether host is a name of the Service that only the cluster knows.
func (f Front) isInside(host string) bool {
	name := f.Service + "." + f.Namespace
	return host == "" || host == f.Service || host == name || host == name+".svc" || strings.HasPrefix(host, name+".svc.") ||
		slices.Contains(f.Reach.Inside, host)
}

// matches reports whether host is one of hosts. As in Ingresses, a host may begin with a wildcard for one label.
func matches(host string, hosts []string) bool {
	return slices.ContainsFunc(hosts, func(h string) bool {
		rest, wild := strings.CutPrefix(h, "*")
		if !wild {
			return h == host
		}
		label, found := strings.CutSuffix(host, rest)
		return found && label != "" && !strings.Contains(label, ".")
	})
}

// hostname returns a Host without its port, in lower case.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// pathOf returns the path of a target or URL.
func pathOf(target string) string {
	if _, rest, found := strings.Cut(target, "://"); found {
		slash := strings.IndexByte(rest, '/')
		if slash < 0 {
			return "/"
		}
		target = rest[slash:]
	}
	path, _, _ := strings.Cut(target, "?")
	return path
}
