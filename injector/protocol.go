// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// protocol decides how an interceptor treats a port. The first of these sources that says something counts:
//
//  1. the port's appProtocol, if it is known;
//  2. the annotation, whose value is setting; auto counts too;
//  3. a name that begins with http, as all of Kubernetes takes it. On such a port only requests and TLS pass, so that no client gets
//     past the rules for requests as bytes;
//  4. a name or number of a protocol in which the server speaks first, so that nobody waits for a silent client there.
//
// Otherwise the first bytes of each connection decide, unless exposedPorts knows better.
func protocol(p corev1.ServicePort, setting string) string {
	if p.AppProtocol != nil {
		if known := appProtocol(*p.AppProtocol); known != "" {
			return known
		}
	}
	if said, _ := parseProtocols(setting); said.of(p) != "" {
		return said.of(p)
	}
	switch {
	case namedHTTP(p):
		return api.ProtocolHTTP
	case serverSpeaksFirst(p):
		return api.ProtocolTCP
	}
	return api.ProtocolAuto
}

// namedHTTP reports whether the name of a port says that it speaks HTTP. A port for TLS passes as bytes.
func namedHTTP(p corev1.ServicePort) bool {
	name := strings.ToLower(p.Name)
	return strings.HasPrefix(name, "http") && !strings.HasPrefix(name, "https")
}

// exposedPorts makes HTTP of the ports of routes to which Ingresses send requests, if nothing else says what they speak. An Ingress
// that passes bytes or another protocol on, by an annotation such as nginx.ingress.kubernetes.io/backend-protocol, does not count.
func exposedPorts(routes *api.Routes, service *corev1.Service, setting string, ingresses []networkingv1.Ingress) {
	said, _ := parseProtocols(setting)
	for i, p := range service.Spec.Ports {
		if routes.Ports[i].Protocol == api.ProtocolAuto && said.of(p) == "" &&
			slices.ContainsFunc(ingresses, func(in networkingv1.Ingress) bool {
				return sendsHTTP(&in) && refersTo(&in, service.Name, p.Name, p.Port)
			}) {
			routes.Ports[i].Protocol = api.ProtocolHTTP
		}
	}
}

// sendsHTTP reports whether an Ingress sends HTTP to its backends, without or within TLS.
func sendsHTTP(ingress *networkingv1.Ingress) bool {
	for key, value := range ingress.Annotations {
		if _, name, _ := strings.Cut(key, "/"); name != "backend-protocol" {
			continue
		}
		switch strings.ToUpper(value) {
		case "HTTP", "HTTPS", "HTTP1", "HTTP2", "H1", "H2", "H1-SSL", "H2-SSL", "H2C", "GRPC", "GRPCS", "AUTO_HTTP":
		default:
			return false
		}
	}
	return true
}

// appProtocol returns the protocol of an appProtocol; empty if the name is unknown. It knows the names of the IANA registry, of
// Kubernetes' own list (KEP-3726), and others in common use. TLS passes as bytes, and its client speaks first.
func appProtocol(name string) string {
	switch strings.ToLower(name) {
	case "http", "http1", "http2", "h2c", "grpc", "grpc-web", "ws", "websocket", "kubernetes.io/h2c", "kubernetes.io/ws":
		return api.ProtocolHTTP
	case "tcp", "https", "tls", "ssl", "h2", "grpcs", "wss", "kubernetes.io/wss",
		"mysql", "mariadb", "postgresql", "postgres", "pgsql", "mssql", "ms-sql-s", "oracle", "cassandra", "cql",
		"mongo", "mongodb", "redis", "rediss", "memcache", "memcached", "zookeeper",
		"amqp", "amqps", "kafka", "mqtt", "mqtts", "secure-mqtt", "nats", "stomp",
		"ldap", "ldaps", "smtp", "smtps", "submission", "submissions", "imap", "imaps", "pop3", "pop3s",
		"ssh", "sftp", "ftp", "ftps", "telnet", "rsync", "git", "irc", "nntp", "vnc", "rfb", "rdp", "dns", "domain":
		return api.ProtocolTCP
	default:
		return ""
	}
}

// serverSpeaksFirst reports whether a port uses a protocol whose client waits for the server's greeting. It goes by the port's name,
// which by convention begins with the protocol, and by its number.
func serverSpeaksFirst(p corev1.ServicePort) bool {
	name := strings.TrimPrefix(strings.ToLower(p.Name), "tcp-")
	name, _, _ = strings.Cut(name, "-")
	switch name {
	case "mysql", "mariadb", "smtp", "submission", "imap", "pop3", "ssh", "sftp", "ftp", "nntp", "nats", "vnc", "rfb":
		return true
	}
	switch p.Port {
	case 21, 22, 25, 110, 119, 143, 587, 3306, 4222, 5900:
		return !speaksHTTP(p)
	}
	return false
}

const protocolsAllowed = "auto, http or tcp; for one port PORT=PROTOCOL, with its name or number; several separated by commas, as " +
	"in http,5432=tcp"

// parseProtocols reads annotation protocol.
func parseProtocols(value string) (portValues, bool) {
	return parsePortValues(value, api.ProtocolAuto, api.ProtocolHTTP, api.ProtocolTCP)
}

// portValues is what an annotation says about ports.
type portValues struct {
	all   string            // for the ports that are not named
	ports map[string]string // for the named ports, by name or number
}

// parsePortValues reads an annotation about ports: VALUE for all ports, PORT=VALUE for one port, or a comma-separated list of these,
// in which VALUE alone is for all other ports.
func parsePortValues(value string, allowed ...string) (_ portValues, ok bool) {
	said := portValues{ports: map[string]string{}}
	for entry := range strings.SplitSeq(value, ",") {
		port, one, named := strings.Cut(strings.TrimSpace(entry), "=")
		if !named {
			port, one = "", port
		}
		if !slices.Contains(allowed, one) {
			return portValues{}, false
		}
		switch _, twice := said.ports[port]; {
		case !named && said.all == "":
			said.all = one
		case named && !twice && isPort(port):
			said.ports[port] = one
		default:
			return portValues{}, false
		}
	}
	return said, true
}

// isPort reports whether s can be the number or the name of a Service's port.
func isPort(s string) bool {
	if strings.Trim(s, "0123456789") == "" {
		n, err := strconv.ParseUint(s, 10, 16)
		return err == nil && n > 0 && s[0] != '0'
	}
	return len(validation.IsDNS1123Label(s)) == 0
}

// of returns the value for a port; empty if there is none.
func (said portValues) of(p corev1.ServicePort) string {
	if value, ok := said.ports[p.Name]; ok {
		return value
	}
	if value, ok := said.ports[strconv.Itoa(int(p.Port))]; ok {
		return value
	}
	return said.all
}

// CheckPorts checks the Service's own annotations protocol, proxy-protocol and busy. Every port that they name must be a port of the
// Service, and be named only once: otherwise a setting would have no effect. It does not check the annotations of a Namespace or an
// Ingress, which apply to several Services, and not all of these have the port. The user has to fix the error. ParseSettings reports
// values that do not parse.
func CheckPorts(service *corev1.Service) error {
	protocols, _ := parseProtocols(service.Annotations[Prefix+"protocol"])
	proxied, _ := parseProxyProtocol(service.Annotations[Prefix+"proxy-protocol"])
	return errors.Join(checkPorts(service, "protocol", protocols), checkPorts(service, "proxy-protocol", proxied),
		checkPorts(service, busyRequest, busyPort(service.Annotations[Prefix+busyRequest])))
}

// checkPorts is CheckPorts for one annotation.
func checkPorts(service *corev1.Service, setting string, said portValues) error {
	value := service.Annotations[Prefix+setting]
	unknown := maps.Clone(said.ports)
	for _, p := range service.Spec.Ports {
		number := strconv.Itoa(int(p.Port))
		_, byName := said.ports[p.Name]
		if _, byNumber := said.ports[number]; byName && byNumber && p.Name != number {
			return &SettingError{
				Key: "annotation " + Prefix + setting, Value: value,
				Allowed: fmt.Sprintf("%s and %s are one port; name it once", p.Name, number),
			}
		}
		delete(unknown, p.Name)
		delete(unknown, number)
	}
	if len(unknown) == 0 {
		return nil
	}
	has := make([]string, len(service.Spec.Ports))
	for i, p := range service.Spec.Ports {
		has[i] = portName(p)
	}
	return &SettingError{
		Key: "annotation " + Prefix + setting, Value: value,
		Allowed: fmt.Sprintf("Service %s has no port %s; it has %s", service.Name, strings.Join(slices.Sorted(maps.Keys(unknown)), ", "),
			strings.Join(has, ", ")),
	}
}
