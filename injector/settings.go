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
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Settings are the annotations of an opted-in Service, its Namespace and its Ingresses.
type Settings struct {
	Sizes

	// Workload names the workload, in the format of ParseWorkload; empty if the selector determines it.
	Workload string
	// Cooldown is how long the app has to be idle before it sleeps.
	Cooldown time.Duration
	// HoldTimeout is how long a request is held at most.
	HoldTimeout time.Duration
	// Protocol is for ports whose appProtocol says nothing, in the format of parseProtocols; empty if it is not set.
	Protocol string
	// IgnorePaths and IgnoreAgents select the requests that neither wake nor count, in the formats of parseIgnorePaths and
	// parseIgnoreAgents; empty if they are not set.
	IgnorePaths, IgnoreAgents string
	// Awake is when the app is kept awake, as api.ParseWindows reads it; empty if it is not set.
	Awake string
	// WaitingPage says who sees a page while the app starts: one of api's Page constants; empty if it is not set.
	WaitingPage string
	// Details says what visitors read about a start that fails: detailsKind or detailsFull; empty if it is not set.
	Details string
	// DirectLabels makes the direct Service carry the Service's labels, by which monitors find the pods.
	DirectLabels bool
	// InternalServices makes a Namespace's opt-in include Services that only other pods call.
	InternalServices bool
	// AffinityCookie is Routes.AffinityCookie.
	AffinityCookie string
	// WakeWith names the Services that wake together with this one, as parseWakeWith reads it; empty when it is not given.
	WakeWith string
	// NoLearning keeps the workload from waking others, and others from waking it, because one was seen to call the other.
	NoLearning bool
	// Readiness says who decides that a starting pod takes requests: readinessApp or readinessKubelet; empty when it is not given.
	Readiness string
	// ProxyProtocol says on which ports pods get a PROXY header, in the format of parseProxyProtocol; empty if it is not set.
	ProxyProtocol string
	// StartupCPU is the CPU limit of the first pod's containers while the app starts, as parseStartupCPU reads it; empty if it is not set.
	StartupCPU string
	// Busy says what keeps the app up besides requests.
	Busy BusySettings
}

// Sizes are the settings about how many replicas an app has, and what they get.
type Sizes struct {
	// MinReplicas is 0 unless the app must never sleep.
	MinReplicas int32
	// MaxReplicas is 0 if it is not set. The maximum then is 1, or the replica count before the injection if that is higher.
	MaxReplicas int32
	// WakeReplicas is with how many replicas the app starts, and the fewest that it has while it is awake. It is 0 if it is not set; it
	// then is what the app had before the injection.
	WakeReplicas int32
	// Asleep keeps the app at zero replicas, whatever is asked of it. AsleepBy is the object whose annotation says so, as kubectl takes it.
	Asleep   bool
	AsleepBy string
	// TargetPendingRequests is how many pending requests one replica should have.
	TargetPendingRequests int32
	// MaxPendingPerPod is how many requests a pod may have at a time; 0 if there is no limit.
	MaxPendingPerPod int32
	// TargetRequestRate is how many requests a second one replica should have; 0 if it is not set.
	TargetRequestRate float64
}

// DefaultSettings are those of a Service without annotations.
func DefaultSettings() Settings {
	return Settings{
		Sizes:       Sizes{TargetPendingRequests: 100},
		Cooldown:    5 * time.Minute,
		HoldTimeout: 5 * time.Minute,
	}
}

// SettingError says which annotation or label has an invalid value, and which values are allowed.
type SettingError struct {
	Key, Value string
	Allowed    string
}

func (e *SettingError) Error() string {
	return fmt.Sprintf("%s: %q is not allowed: %s", e.Key, e.Value, e.Allowed)
}

// setting reads the value of one annotation into s.
type setting func(s *Settings, value string) (allowed string, ok bool)

// settings returns a reader for each annotation that a user may set, by its key without Prefix.
func settings() map[string]setting {
	all := startSettings()
	maps.Copy(all, awakeSettings())
	maps.Copy(all, busySettings())
	maps.Copy(all, pendingSettings())
	maps.Copy(all, rateSettings())
	maps.Copy(all, map[string]setting{
		"workload": func(s *Settings, v string) (string, bool) {
			s.Workload = v
			_, _, ok := ParseWorkload(v)
			return "Deployment/NAME, StatefulSet/NAME, or KIND.GROUP/NAME of a custom resource with a scale subresource", ok
		},
		"min-replicas": func(s *Settings, v string) (string, bool) {
			return integer(&s.MinReplicas, v, 0, api.MaxReplicas)
		},
		"max-replicas": func(s *Settings, v string) (string, bool) {
			return integer(&s.MaxReplicas, v, 1, api.MaxReplicas)
		},
		"target-pending-requests": func(s *Settings, v string) (string, bool) {
			return integer(&s.TargetPendingRequests, v, 1, 1_000_000)
		},
		"cooldown": func(s *Settings, v string) (string, bool) {
			return duration(&s.Cooldown, v, api.MinCooldown, api.MaxCooldown)
		},
		"hold-timeout": func(s *Settings, v string) (string, bool) {
			return duration(&s.HoldTimeout, v, api.MinHoldTimeout, api.MaxHoldTimeout)
		},
		"protocol": func(s *Settings, v string) (string, bool) {
			s.Protocol = v
			_, ok := parseProtocols(v)
			return protocolsAllowed, ok
		},
		"affinity-cookie": func(s *Settings, v string) (string, bool) {
			s.AffinityCookie = v
			return "the name of the app's session cookie, such as JSESSIONID, at most 128 characters of a token of RFC 6265; " +
				"or auto for a cookie of scale-to-zero's own", api.IsCookieName(v)
		},
		"proxy-protocol": func(s *Settings, v string) (string, bool) {
			s.ProxyProtocol = v
			_, ok := parseProxyProtocol(v)
			return proxyProtocolAllowed, ok
		},
		"ignore-paths": func(s *Settings, v string) (string, bool) {
			s.IgnorePaths = v
			_, ok := parseIgnorePaths(v)
			return ignorePathsAllowed, ok
		},
		"ignore-user-agents": func(s *Settings, v string) (string, bool) {
			s.IgnoreAgents = v
			_, _, ok := parseIgnoreAgents(v)
			return ignoreAgentsAllowed, ok
		},
		"direct-labels":     func(s *Settings, v string) (string, bool) { return boolean(&s.DirectLabels, v) },
		"internal-services": func(s *Settings, v string) (string, bool) { return boolean(&s.InternalServices, v) },
		"enabled":           func(_ *Settings, v string) (string, bool) { return boolean(new(bool), v) }, // OptedIn reads it
	})
	return all
}

// Values of annotation details.
const (
	detailsKind = "kind" // what kind of failure it is
	detailsFull = "full" // the sentence of the event
)

// startSettings are the settings about how an app wakes and starts.
func startSettings() map[string]setting {
	return map[string]setting{
		"waiting-page": func(s *Settings, v string) (string, bool) {
			return word(&s.WaitingPage, v, api.PageAuto, api.PageAlways, api.PageNever)
		},
		"details": func(s *Settings, v string) (string, bool) { return word(&s.Details, v, detailsKind, detailsFull) },
		"wake-with": func(s *Settings, v string) (string, bool) {
			s.WakeWith = v
			_, ok := parseWakeWith(v)
			return fmt.Sprintf("at most %d names of Services of this namespace, separated by commas", api.MaxWakeWith), ok
		},
		"learn": func(s *Settings, v string) (string, bool) {
			learn := true
			allowed, ok := boolean(&learn, v)
			s.NoLearning = ok && !learn
			return allowed, ok
		},
		"wake-replicas": func(s *Settings, v string) (string, bool) {
			return integer(&s.WakeReplicas, v, 1, api.MaxReplicas)
		},
		"asleep":      func(s *Settings, v string) (string, bool) { return boolean(&s.Asleep, v) },
		"startup-cpu": readStartupCPU,
		"readiness": func(s *Settings, v string) (string, bool) {
			return word(&s.Readiness, v, readinessApp, readinessKubelet)
		},
	}
}

// InternalServicesAnnotation is the one setting that only Namespaces have.
const InternalServicesAnnotation = Prefix + "internal-services"

// checkNoNamespaceSetting checks that a Service or an Ingress does not have the setting for Namespaces.
func checkNoNamespaceSetting(annotations map[string]string) error {
	value, ok := annotations[InternalServicesAnnotation]
	if !ok {
		return nil
	}
	return &SettingError{
		Key: "annotation " + InternalServicesAnnotation, Value: value, Allowed: "it says which Services a Namespace's opt-in includes: " +
			"set it on the Namespace",
	}
}

// internal reports whether only we write this key.
func internal(key string) bool { return key == RedirectAnnotation || key == AliasesAnnotation }

// Layer merges our annotations of layers. Each key has its value from the last layer that sets it.
func Layer(layers ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, annotations := range layers {
		for key, value := range annotations {
			if strings.HasPrefix(key, Prefix) {
				out[key] = value
			}
		}
	}
	return out
}

// ParseSettings reads the annotations of an opted-in object, or the result of Layer. The error names each invalid annotation, as a
// SettingError with its key, its value and the allowed values. An unknown key below Prefix is an error too: otherwise a misspelled
// setting would silently do nothing.
func ParseSettings(annotations map[string]string) (Settings, error) {
	s := DefaultSettings()
	known := settings()
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ours := strings.CutPrefix(key, Prefix)
		if !ours || internal(key) {
			continue
		}
		read, ok := known[name]
		if !ok {
			errs = append(errs, &SettingError{
				Key: "annotation " + key, Value: annotations[key],
				Allowed: "there is no such setting; there are " + Prefix + strings.Join(slices.Sorted(maps.Keys(known)), ", "+Prefix),
			})
			continue
		}
		if allowed, ok := read(&s, annotations[key]); !ok {
			errs = append(errs, &SettingError{Key: "annotation " + key, Value: annotations[key], Allowed: "allowed is " + allowed})
		}
	}
	if len(errs) == 0 {
		errs = append(errs, s.beyondMax("min-replicas", s.MinReplicas), s.beyondMax("wake-replicas", s.WakeReplicas))
	}
	return s, errors.Join(errs...)
}

// beyondMax says that the replica count of a setting is beyond MaxReplicas.
func (s *Settings) beyondMax(key string, n int32) error {
	if s.MaxReplicas == 0 || n <= s.MaxReplicas {
		return nil
	}
	return &SettingError{
		Key: "annotation " + Prefix + key, Value: strconv.Itoa(int(n)),
		Allowed: fmt.Sprintf("allowed is at most %smax-replicas, which is %d", Prefix, s.MaxReplicas),
	}
}

func integer(to *int32, value string, low, high int32) (string, bool) {
	n, err := strconv.ParseInt(value, 10, 32)
	*to = int32(n)
	return fmt.Sprintf("a whole number from %d to %d", low, high), err == nil && *to >= low && *to <= high
}

func boolean(to *bool, value string) (string, bool) {
	*to = value == "true"
	return `"true" or "false"`, isBool(value)
}

func word(to *string, value string, allowed ...string) (string, bool) {
	*to = value
	last := len(allowed) - 1
	return strings.Join(allowed[:last], ", ") + " or " + allowed[last], slices.Contains(allowed, value)
}

func duration(to *time.Duration, value string, low, high time.Duration) (string, bool) {
	d, err := time.ParseDuration(value)
	*to = d
	return fmt.Sprintf("a duration such as 30s, 5m or 1h30m, from %s to %s", Short(low), Short(high)), err == nil && d >= low && d <= high
}

// Short prints a duration without trailing zeros: 1h and not 1h0m0s.
func Short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Rounded makes a duration readable: it rounds to a tenth of a second below a minute, and to seconds above.
func Rounded(d time.Duration) string {
	if tenths := d.Round(100 * time.Millisecond); tenths < time.Minute {
		return tenths.String()
	}
	return Short(d.Round(time.Second))
}
