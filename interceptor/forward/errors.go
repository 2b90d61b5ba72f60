// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"google.golang.org/grpc/codes"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// StatusClientGone is counted for a request whose client went away before the answer; nobody receives it.
const StatusClientGone = 499

// ErrDraining is the cause of contexts that end because the interceptor does.
var ErrDraining = errors.New("this interceptor is shutting down")

// answer is what a client is told about an error.
type answer struct {
	status     int
	retryAfter int // seconds; 0 is no such header
	text       string
	kind       string // its type; empty is plain text
	fields     []field
}

func plain(status, retryAfter int, text string) answer {
	return answer{status: status, retryAfter: retryAfter, text: text}
}

// answerFor is the one table from errors to answers.
func answerFor(err error) answer {
	var bad http1.Malformed
	var unreadable errAnswer
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
		return answer{status: http.StatusOK, text: "# scale-to-zero: " + asleep.Error() + "; this request does not wake it.", kind: sleepType}
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
		return plain(StatusClientGone, 0, "")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return plain(http.StatusGatewayTimeout, 0, "scale-to-zero: the app did not answer in time.")
	case errors.As(err, &unreadable):
		return plain(http.StatusBadGateway, 0, "scale-to-zero: "+unreadable.Error()+".")
	default:
		return plain(http.StatusBadGateway, 0, "scale-to-zero: the app's pod broke off before it answered.")
	}
}

// respondHTTP2 answers a request of HTTP/2 that could not be forwarded: one of gRPC in its own words, since its clients
// take any other answer for a failure of which they know nothing.
func respondHTTP2(w http.ResponseWriter, r *http.Request, err error) {
	a := answerFor(err)
	a.fields = ownFields(err, "")
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		if a.status == http.StatusOK && r.URL.Path == route.HealthCheck {
			respondHealthy(w)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		for _, f := range a.fields {
			h.Set(f.name, f.value)
		}
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", strconv.Itoa(int(grpcCode(err, a))))
		h.Set("Grpc-Message", strings.TrimPrefix(a.text, "# "))
		w.WriteHeader(http.StatusOK)
		return
	}
	a.write(w)
}

// write sends a as the answer by HTTP/2.
func (a answer) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	for _, f := range a.fields {
		h.Set(f.name, f.value)
	}
	h.Set("Content-Type", a.contentType())
	h.Set("X-Content-Type-Options", "nosniff")
	if a.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(a.retryAfter))
	}
	w.WriteHeader(a.status)
	if a.text != "" {
		_, _ = io.WriteString(w, a.text+"\n") // the client may be gone, and there is nobody else to tell
	}
}

// grpcCode is the status of a call that could not be forwarded. Unavailable invites the client to try again, and so is
// not for calls that the app has given up itself.
func grpcCode(err error, a answer) codes.Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded
	}
	if stream, ok := errors.AsType[xhttp2.StreamError](err); ok {
		return resetCode(stream.Code)
	}
	if a.status == StatusClientGone {
		return codes.Canceled
	}
	return codes.Unavailable
}

// resetCode is what a gRPC client takes a reset of its stream for, by gRPC's own table.
func resetCode(reset xhttp2.ErrCode) codes.Code {
	switch reset {
	case xhttp2.ErrCodeCancel:
		return codes.Canceled
	case xhttp2.ErrCodeRefusedStream:
		return codes.Unavailable
	case xhttp2.ErrCodeEnhanceYourCalm:
		return codes.ResourceExhausted
	case xhttp2.ErrCodeInadequateSecurity:
		return codes.PermissionDenied
	default:
		return codes.Internal
	}
}

func (a answer) contentType() string { return cmp.Or(a.kind, "text/plain; charset=utf-8") }

// appendAnswer appends a as it goes out by HTTP/1.1. Ends says that the connection ends with it, and head that it
// answers a HEAD.
func appendAnswer(dst []byte, a answer, ends, head bool) []byte {
	dst = append(append(append(dst, "HTTP/1.1 "...), strconv.Itoa(a.status)...), ' ')
	dst = append(append(dst, http.StatusText(a.status)...), "\r\n"...)
	dst = appendField(dst, "Content-Type", a.contentType())
	dst = appendField(dst, "Cache-Control", "no-store")
	dst = appendField(dst, "X-Content-Type-Options", "nosniff")
	if a.retryAfter > 0 {
		dst = appendField(dst, "Retry-After", strconv.Itoa(a.retryAfter))
	}
	for _, f := range a.fields {
		dst = appendField(dst, f.name, f.value)
	}
	dst = appendField(dst, "Content-Length", strconv.Itoa(len(a.text)+1))
	if ends {
		dst = appendField(dst, "Connection", "close")
	}
	dst = append(dst, "\r\n"...)
	if head {
		return dst
	}
	return append(append(dst, a.text...), '\n')
}
