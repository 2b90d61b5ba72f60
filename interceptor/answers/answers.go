// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package answers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// ClientGone is the status that counts for a request whose client went away before the answer. No client receives it.
const ClientGone = 499

const (
	// StateField marks an answer that is not the app's, because the app is asleep or starting.
	StateField = "Scale-To-Zero"
	// HeldField says how long the request was held.
	HeldField = "Scale-To-Zero-Held"
)

// sleepType is the type of the answer to a request that does not wake the app. Prometheus takes the answer for a comment, and so the
// app for one without metrics. Everybody else can read it.
const sleepType = "text/plain; version=0.0.4; charset=utf-8"

// ErrDraining is the cause of contexts that end because the interceptor shuts down.
var ErrDraining = errors.New("this interceptor is shutting down")

// UnreadableError means that the app has answered with something that is not HTTP.
type UnreadableError struct{ Why string }

func (e *UnreadableError) Error() string { return "the app's answer is not HTTP: " + e.Why }

// Field is a header field that we add to an answer.
type Field struct{ Name, Value string }

// Answer is an answer of ours to a client.
type Answer struct {
	Status     int
	RetryAfter int // seconds; 0 means no Retry-After field
	Text       string
	Kind       string // its content type; empty means plain text
	Fields     []Field
}

// Draining returns the answer to a poll of the waiting page when this interceptor shuts down. The page stays as it is, and polls
// another interceptor.
func Draining(err error) Answer {
	a := For(err)
	a.Fields = []Field{{StateField, "starting"}}
	return a
}

func plain(status, retryAfter int, text string) Answer {
	return Answer{Status: status, RetryAfter: retryAfter, Text: text}
}

// For returns the answer to an error. It is the only table of that kind.
func For(err error) Answer {
	var bad http1.MalformedError
	var unreadable *UnreadableError
	var held *route.HoldTimeoutError
	var unreachable *route.UnreachableError
	var asleep *route.AsleepError
	var down *route.DownError
	var failed *route.StartFailedError
	var starting *route.StartingError
	var timeout net.Error
	switch {
	case errors.As(err, &bad):
		return plain(bad.Status(), 0, "scale-to-zero: this request was not passed on: "+bad.Error()+".")
	case errors.As(err, &held) && held.Busy != nil:
		return plain(http.StatusGatewayTimeout, 10, "scale-to-zero: "+held.Error()+".")
	case errors.As(err, &held):
		text := fmt.Sprintf("scale-to-zero: service %s: no pod of %s became ready while this request waited, for %s.",
			held.Service, held.Target.Workload, held.Waited.Round(100*time.Millisecond))
		return plain(http.StatusGatewayTimeout, 10, text)
	case errors.As(err, &unreachable):
		return plain(http.StatusGatewayTimeout, 10, "scale-to-zero: service "+unreachable.Service+": "+unreachable.Visitor()+".")
	case errors.As(err, &asleep) && asleep.Quiet:
		return plain(http.StatusServiceUnavailable, 30, "scale-to-zero: "+asleep.Error()+
			", and reopening a connection that was cut when it fell asleep does not wake it. Reload the page to do so.")
	case errors.As(err, &asleep):
		return Answer{Status: http.StatusOK, Text: "# scale-to-zero: " + asleep.Error() + "; this request does not wake it.", Kind: sleepType}
	case errors.As(err, &down):
		return plain(http.StatusServiceUnavailable, 5, "scale-to-zero: "+down.Error()+".")
	case errors.As(err, &failed):
		return plain(http.StatusServiceUnavailable, 10, "scale-to-zero: "+failed.Error()+".")
	case errors.As(err, &starting):
		return plain(http.StatusServiceUnavailable, 2, "scale-to-zero: "+starting.Error()+".")
	case errors.Is(err, route.ErrTooManyHeld):
		return plain(http.StatusServiceUnavailable, 5, "scale-to-zero: too many requests wait for the app already.")
	case errors.Is(err, budget.ErrExhausted):
		return plain(http.StatusServiceUnavailable, 5, "scale-to-zero: "+err.Error()+".")
	case errors.Is(err, ErrDraining):
		return plain(http.StatusServiceUnavailable, 1, "scale-to-zero: this interceptor is shutting down. Try again.")
	case errors.Is(err, context.Canceled):
		return plain(ClientGone, 0, "")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return plain(http.StatusGatewayTimeout, 0, "scale-to-zero: the app did not answer in time.")
	case errors.As(err, &unreadable):
		return plain(http.StatusBadGateway, 0, "scale-to-zero: "+unreadable.Error()+".")
	default:
		return plain(http.StatusBadGateway, 0, "scale-to-zero: the app's pod closed the connection before it answered.")
	}
}

// own returns the fields that identify an answer to err as ours.
func own(err error) []Field {
	asleep, ok := errors.AsType[*route.AsleepError](err)
	switch {
	case !ok:
		return nil
	case asleep.Starting:
		return []Field{{StateField, "starting"}}
	default:
		return []Field{{StateField, "asleep"}}
	}
}

// held returns the value of HeldField for a wait.
func held(d time.Duration) string {
	return strconv.FormatFloat(d.Round(time.Millisecond).Seconds(), 'f', 3, 64) + "s"
}

// all returns the fields of a in their order.
func (a *Answer) all() []Field {
	kind := a.Kind
	if kind == "" {
		kind = "text/plain; charset=utf-8"
	}
	fields := append(make([]Field, 0, 8),
		Field{"Content-Type", kind}, Field{"Cache-Control", "no-store"}, Field{"X-Content-Type-Options", "nosniff"})
	if a.RetryAfter > 0 {
		fields = append(fields, Field{"Retry-After", strconv.Itoa(a.RetryAfter)})
	}
	return append(fields, a.Fields...)
}
