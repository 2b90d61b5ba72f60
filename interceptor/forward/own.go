// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

const (
	// stateField says of an answer that it is not the app's, since that is asleep or starting.
	stateField = "Scale-To-Zero"
	// heldField says how long the request was held.
	heldField = "Scale-To-Zero-Held"
)

// sleepType is the type of what a request that wakes nobody is answered: a comment to Prometheus, which takes it for an app
// without metrics, and readable for everybody else.
const sleepType = "text/plain; version=0.0.4; charset=utf-8"

// field is one that an answer gets from us.
type field struct{ name, value string }

// ownFields are those of an answer to err of ours.
func ownFields(err error, held string) []field {
	var fields []field
	var asleep *route.AsleepError
	switch {
	case !errors.As(err, &asleep):
	case asleep.Starting:
		fields = append(fields, field{stateField, "starting"})
	default:
		fields = append(fields, field{stateField, "asleep"})
	}
	if held != "" {
		fields = append(fields, field{heldField, held})
	}
	return fields
}

// heldFor is what heldField says of a visit; empty if it was not held, or nobody wants to know.
func (o *Options) heldFor(v *route.Visit) string {
	if v.Held == 0 || o.HideHeld {
		return ""
	}
	return strconv.FormatFloat(v.Held.Round(time.Millisecond).Seconds(), 'f', 3, 64) + "s"
}

// ignores says that the request neither wakes nor counts.
func (c *conn) ignores() bool {
	b := c.in.bytes()
	return c.route.Ignores(c.req.Method(b), c.req.Target(b), c.req.Value(b, http1.UserAgent))
}

// answered counts the request by its answer.
func (c *conn) answered(status int) {
	c.status = status
	if !c.ignored && !c.quiet {
		c.route.Metrics.Answered(status)
	}
}

// heldLine is the line about the request's wait, which most have not had.
func (c *conn) heldLine() string {
	held := c.engine.options.heldFor(&c.visit)
	if held == "" {
		return ""
	}
	return heldField + ": " + held + "\r\n"
}

// choose picks the pod for a request of HTTP/2.
func (s *sender) choose(req *http.Request, v *route.Visit) (*route.Endpoint, error) {
	if s.ignored {
		return s.route.PickReady(req.Context(), v)
	}
	if pod := s.route.TryPick(v); pod != nil {
		return pod, nil
	}
	v.Patience = s.options.patience(s.route, page.Request{
		Method: req.Method, Target: req.URL.RequestURI(), Host: req.Host, HasBody: req.Body != nil && req.Body != http.NoBody, Value: s.came(req),
	})
	return s.route.Pick(req.Context(), v)
}

// HTTP2Ignores says that a request of HTTP/2 neither wakes nor counts.
func HTTP2Ignores(r *route.Route, in *http.Request) bool {
	if polls(in) {
		return false
	}
	if in.Method == http.MethodConnect {
		return true // it is refused
	}
	var method [16]byte
	var target, agent [256]byte // longer ones need the heap
	return r.Ignores(append(method[:0], in.Method...), append(target[:0], in.RequestURI...), append(agent[:0], in.UserAgent()...))
}

// respondHealthy answers gRPC's health check for an app that sleeps: that it serves, as a plain probe is answered 200, since
// a load balancer that takes it for broken would send it nobody who wakes it.
func respondHealthy(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Trailer", "Grpc-Status")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte{0, 0, 0, 0, 2, 1 << 3, 1}) // a message of two bytes: field 1, status, is 1, SERVING
	h.Set("Grpc-Status", "0")
}

// came returns the header fields with which a request of HTTP/2 has come. It is asked of the one that goes out, to which
// fields about its way were added.
func (s *sender) came(out *http.Request) func(name string) string {
	return func(name string) string {
		value := out.Header.Get(name)
		switch name {
		case "x-forwarded-for":
			if !strings.Contains(value, ",") {
				return ""
			}
		case "x-forwarded-host":
			if value == out.Host {
				return ""
			}
		case "x-forwarded-proto":
			if value == "http" {
				return ""
			}
		}
		return value
	}
}
