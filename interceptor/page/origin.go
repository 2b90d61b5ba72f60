// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"net"
	"slices"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A program in the cluster may send a browser's headers on with a request of its own: nginx's auth_request, Traefik's
// ForwardAuth, a backend for a frontend. It takes the waiting page for the answer of the app and fails its visitor. Two
// things distinguish such a request from a browser's: what the authentication of an ingress controller adds to it, and how it
// came. A browser comes through a proxy that says so and passes its Host on, or straight to a load balancer or node port;
// a program in the cluster asks for the Service by a name that only the cluster knows.

// Front is where the pages of an app are shown.
type Front struct {
	Namespace, Service string
	// Reach is how browsers come to the Service; nil if that is not known.
	Reach *api.Reach
}

// IsSubrequest says that a proxy makes r on behalf of another request, to ask whether that is allowed.
func IsSubrequest(r Request) bool {
	for _, name := range [...]string{"x-original-method", "x-forwarded-method", "x-auth-request-redirect", "x-sent-from"} {
		if r.Value(name) != "" {
			return true
		}
	}
	// Some proxies say with each request what it asked for before they rewrote it, others with subrequests alone.
	for _, name := range [...]string{"x-original-url", "x-original-uri", "x-forwarded-uri"} {
		if value := r.Value(name); value != "" && pathOf(value) != pathOf(r.Target) {
			return true
		}
	}
	return false
}

// IsFromBrowser says that r may have come from a browser to the app of f. In doubt it does not.
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

// isProxied says that a proxy has passed r on.
func isProxied(r Request) bool {
	for _, name := range [...]string{"x-forwarded-for", "forwarded", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"} {
		if r.Value(name) != "" {
			return true
		}
	}
	return false
}

// isInside says that only the cluster knows the Service as host.
func (f Front) isInside(host string) bool {
	name := f.Service + "." + f.Namespace
	return host == "" || host == f.Service || host == name || host == name+".svc" || strings.HasPrefix(host, name+".svc.") ||
		slices.Contains(f.Reach.Inside, host)
}

// matches says that host is one of hosts, of which some begin with a wildcard for one label, as those of Ingresses do.
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

// hostname is a Host without its port, in lower case.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// pathOf is the path of a target or URL.
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
