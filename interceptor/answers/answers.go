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

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// ClientGone is the status that is counted for a request whose client went away before the answer; no client receives it.
const ClientGone = 499

const (
	// StateField says of an answer that it is not the app's, since the app is asleep or starting.
	StateField = "Scale-To-Zero"
	// HeldField says how long the request was held.
	HeldField = "Scale-To-Zero-Held"
)

// sleepType is the type of an answer to a request that does not wake the app: a comment to Prometheus, which takes it for an
// app without metrics, and readable for everybody else.
const sleepType = "text/plain; version=0.0.4; charset=utf-8"

// ErrDraining is the cause of contexts that end because the interceptor does.
var ErrDraining = errors.New("this interceptor is shutting down")

// UnreadableError says that the app has answered with something that is no HTTP.
type UnreadableError struct{ Why string }

func (e *UnreadableError) Error() string { return "the app's answer is not HTTP: " + e.Why }

// Field is one that an answer gets from us.
type Field struct{ Name, Value string }

// Answer is what a client receives from us.
type Answer struct {
	Status     int
	RetryAfter int // seconds; 0 is no such field
	Text       string
	Kind       string // its type; empty is plain text
	Fields     []Field
}

// Draining is the answer to a poll of the waiting page when this interceptor ends: the page shows what it shows, and asks
// another one.
func Draining(err error) Answer {
	a := For(err)
	a.Fields = []Field{{StateField, "starting"}}
	return a
}

func plain(status, retryAfter int, text string) Answer {
	return Answer{Status: status, RetryAfter: retryAfter, Text: text}
}

// For is the one table from errors to answers.
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
	case errors.As(err, &held):
		text := fmt.Sprintf("scale-to-zero: service %s: no pod of %s became ready while this request waited, for %s.",
			held.Service, held.Target.Workload, held.Waited.Round(100*time.Millisecond))
		return plain(http.StatusGatewayTimeout, 10, text)
	case errors.As(err, &unreachable):
		return plain(http.StatusGatewayTimeout, 10, "scale-to-zero: service "+unreachable.Service+": "+unreachable.Error())
	case errors.As(err, &asleep) && asleep.Quiet:
		return plain(http.StatusServiceUnavailable, 30, "scale-to-zero: "+asleep.Error()+
			", and reopening a connection that was cut for that does not wake it. Reload the page to do so.")
	case errors.As(err, &asleep):
		return Answer{Status: http.StatusOK, Text: "# scale-to-zero: " + asleep.Error() + "; this request does not wake it.", Kind: sleepType}
	case errors.As(err, &down):
		return plain(http.StatusServiceUnavailable, 5, "scale-to-zero: "+down.Error()+".")
	case errors.As(err, &failed):
		return plain(http.StatusServiceUnavailable, 10, "scale-to-zero: "+failed.Error()+".")
	case errors.As(err, &starting):
		return plain(http.StatusServiceUnavailable, 2, "scale-to-zero: "+starting.Error()+".")
	case errors.Is(err, route.ErrTooManyHeld):
		return plain(http.StatusServiceUnavailable, 5, "scale-to-zero: the app is starting, and too many requests wait for it already.")
	case errors.Is(err, ErrDraining):
		return plain(http.StatusServiceUnavailable, 1, "scale-to-zero: this interceptor is shutting down. Try again.")
	case errors.Is(err, context.Canceled):
		return plain(ClientGone, 0, "")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return plain(http.StatusGatewayTimeout, 0, "scale-to-zero: the app did not answer in time.")
	case errors.As(err, &unreadable):
		return plain(http.StatusBadGateway, 0, "scale-to-zero: "+unreadable.Error()+".")
	default:
		return plain(http.StatusBadGateway, 0, "scale-to-zero: the app's pod broke off before it answered.")
	}
}

// own are the fields that say what an answer to err is.
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

// held is what HeldField says of a wait.
func held(d time.Duration) string {
	return strconv.FormatFloat(d.Round(time.Millisecond).Seconds(), 'f', 3, 64) + "s"
}

// all are the fields of a in their order.
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
