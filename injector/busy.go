// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/busy"
)

// BusySettings say what keeps an app up besides requests. All are empty if they are not set.
type BusySettings struct {
	// Request is what the app is asked, as busy.ParseRequest reads it, and When the CEL expression that is true while it is busy. One
	// has no meaning without the other.
	Request, When string
	// CPU is how much CPU the pods use at most while the app is not busy, as parseStartupCPU reads it.
	CPU string
}

// The annotations, without Prefix.
const (
	busyRequest = "busy"
	busyWhen    = "busy-when"
	busyCPU     = "busy-cpu"
)

const busyExample = "GET /computer/api/json"

func busySettings() map[string]setting {
	return map[string]setting{
		busyRequest: func(s *Settings, v string) (string, bool) {
			s.Busy.Request = v
			_, ok := busy.ParseRequest(v)
			return busy.RequestAllowed, ok
		},
		busyWhen: func(s *Settings, v string) (string, bool) {
			s.Busy.When = v
			if err := busy.Check(v); err != nil {
				return fmt.Sprintf("a CEL expression of status, headers, json and body that is true while the app is busy, such as %s; %s",
					busy.Example, err), false
			}
			return "", true
		},
		busyCPU: func(s *Settings, v string) (string, bool) {
			s.Busy.CPU = v
			_, ok := parseStartupCPU(v)
			return fmt.Sprintf("a quantity of CPU such as 200m or 2, from 1m to %d", mostCPU), ok
		},
	}
}

// busyPort is the port that a value of annotation busy names, for CheckPorts.
func busyPort(value string) portValues {
	said := portValues{ports: map[string]string{}}
	if request, ok := busy.ParseRequest(value); ok && request.Port != "" {
		said.ports[request.Port] = request.Method
	}
	return said
}

// check says what is wrong with the settings as a whole, on a Service. Only this, and not admission, sees all of the objects that they
// come from: one may have the request, and another the expression. protocols is Settings.Protocol.
func (b BusySettings) check(service *corev1.Service, protocols string) error {
	refused := func(setting, value, why string) error {
		return &SettingError{Key: "annotation " + Prefix + setting, Value: value, Allowed: why}
	}
	switch {
	case b.Request == "" && b.When == "":
		return nil
	case b.When == "":
		return refused(busyRequest, b.Request, needsWhen)
	case b.Request == "":
		return refused(busyWhen, b.When, needsRequest)
	}
	if _, why := b.port(service, protocols); why != "" {
		return refused(busyRequest, b.Request, why)
	}
	return nil
}

const (
	needsWhen = "it takes annotation " + Prefix + busyWhen + " too, which says when the answer means that the app is busy, such as " +
		busy.Example
	needsRequest = "it takes annotation " + Prefix + busyRequest + " too, which says what the app is asked, such as " + busyExample
)

// halfBusy warns the author of an object that has one of the two annotations. It is no error, since another object may have the other.
func halfBusy(annotations map[string]string) []string {
	request, when := annotations[Prefix+busyRequest], annotations[Prefix+busyWhen]
	const unless = ". Unless the Namespace or the Service has it, the Service is not redirected"
	switch {
	case request != "" && when == "":
		return []string{"annotation " + Prefix + busyRequest + ": " + needsWhen + unless}
	case request == "" && when != "":
		return []string{"annotation " + Prefix + busyWhen + ": " + needsRequest + unless}
	default:
		return nil
	}
}

// port returns the Service's port on which the app is asked, or why there is none.
func (b BusySettings) port(service *corev1.Service, protocols string) (port int32, why string) {
	request, _ := busy.ParseRequest(b.Request)
	asked := func(p corev1.ServicePort) bool { return protocol(p, protocols) != api.ProtocolTCP }
	if request.Port == "" {
		if i := slices.IndexFunc(service.Spec.Ports, asked); i >= 0 {
			return service.Spec.Ports[i].Port, ""
		}
		return 0, fmt.Sprintf("no port of Service %s speaks HTTP; if one does, say so with annotation %sprotocol", service.Name, Prefix)
	}
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
		return p.Name == request.Port || fmt.Sprint(p.Port) == request.Port
	})
	if i < 0 {
		return 0, fmt.Sprintf("Service %s has no port %s", service.Name, request.Port)
	}
	if p := service.Spec.Ports[i]; !asked(p) {
		return 0, fmt.Sprintf("port %s of Service %s does not speak HTTP; if it does, say so with annotation %sprotocol",
			portName(p), service.Name, Prefix)
	}
	return service.Spec.Ports[i].Port, ""
}

// on returns what the routes of a Service say about it; nil if only requests count.
func (b BusySettings) on(service *corev1.Service, protocols string, w Workload) *api.Busy {
	var out api.Busy
	request, ok := busy.ParseRequest(b.Request)
	if port, why := b.port(service, protocols); ok && b.When != "" && why == "" {
		out.Request = &api.BusyRequest{Method: request.Method, Path: request.Path, Port: port, When: b.When}
	}
	if cpu, ok := parseStartupCPU(b.CPU); ok {
		out.CPU, out.Pods = cpu.MilliValue(), cmp.Or(w.Selector, selectorText(OriginalSelector(service)))
	}
	if out == (api.Busy{}) {
		return nil
	}
	return &out
}
