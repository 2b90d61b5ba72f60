// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/go-logr/logr"
)

// errRescued is the error of something that a panic has ended.
var errRescued = errors.New("a bug in the interceptor ended this")

// rescue keeps a panic in the code for one connection from ending the process, and all other connections with it. It has to be
// deferred. It logs the panic and calls end, which cleans up what the panic has left behind.
func rescue(log func() logr.Logger, end func()) {
	if p := recover(); p != nil {
		logPanic(log(), p)
		end()
	}
}

// aborting is the function rescue for a net/http handler. The server then ends the stream.
type aborting struct {
	handler http.Handler
	log     logr.Logger
}

// ServeHTTP implements http.Handler.
func (a aborting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			logPanic(a.log, p)
		}
		panic(http.ErrAbortHandler)
	}()
	a.handler.ServeHTTP(w, r)
}

func logPanic(log logr.Logger, p any) {
	log.Error(fmt.Errorf("panic: %v", p), "A fault of the interceptor has ended one connection; please report it",
		"stack", string(debug.Stack()))
}
