package forward

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/go-logr/logr"
)

// errRescued is what became of something that a panic has ended.
var errRescued = errors.New("a fault of the interceptor ended this")

// Rescue keeps a panic in what serves one connection from ending all others with it. It is to be deferred by whoever runs
// that; it logs the panic and calls end, which ends what the panic has left behind.
func Rescue(log logr.Logger, end func()) {
	if p := recover(); p != nil {
		logPanic(log, p)
		end()
	}
}

// abort is Rescue for the handlers of net/http, whose server ends the stream.
func abort(log logr.Logger) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
		logPanic(log, p)
	}
	panic(http.ErrAbortHandler)
}

func logPanic(log logr.Logger, p any) {
	log.Error(fmt.Errorf("panic: %v", p), "a fault of the interceptor has ended one connection; please report it", "stack", string(debug.Stack()))
}
