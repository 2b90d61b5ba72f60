package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// StatusClientGone is counted for a request whose client went away before the answer; nobody receives it.
const StatusClientGone = 499

// ErrDraining is the cause of contexts that end because the interceptor does.
var ErrDraining = errors.New("this interceptor is shutting down")

// dialError says that a pod could not be reached at all, so that nothing of the request was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// answer is what a client is told about an error.
type answer struct {
	status     int
	retryAfter int // seconds; 0 is no such header
	text       string
}

// answerFor is the one table from errors to answers.
func answerFor(err error) answer {
	var held *route.HoldTimeoutError
	var timeout net.Error
	switch {
	case errors.As(err, &held):
		text := fmt.Sprintf("scale-to-zero: service %s: no pod of %s became ready while this request waited, for %s.",
			held.Service, held.Target.Workload, held.Waited.Round(100*time.Millisecond))
		return answer{http.StatusGatewayTimeout, 10, text}
	case errors.Is(err, route.ErrTooManyHeld):
		return answer{http.StatusServiceUnavailable, 5, "scale-to-zero: the app is starting, and too many requests wait for it already."}
	case errors.Is(err, ErrDraining):
		return answer{http.StatusServiceUnavailable, 1, "scale-to-zero: this interceptor is shutting down. Try again."}
	case errors.Is(err, context.Canceled):
		return answer{StatusClientGone, 0, ""}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return answer{http.StatusGatewayTimeout, 0, "scale-to-zero: the app did not answer in time."}
	default:
		return answer{http.StatusBadGateway, 0, "scale-to-zero: the app's pod broke off before it answered."}
	}
}

// Respond answers a request that could not be forwarded.
func Respond(w http.ResponseWriter, err error) {
	a := answerFor(err)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if a.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(a.retryAfter))
	}
	w.WriteHeader(a.status)
	if a.text != "" {
		_, _ = w.Write([]byte(a.text + "\n")) // the client may be gone, and there is nobody else to tell
	}
}
