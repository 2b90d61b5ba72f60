// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"maps"
	"net/http"
	"net/textproto"
	"sync"
)

// informational passes on the informational answers (1xx) to one HTTP/2 request. The transport calls pass from the goroutine that
// reads the pod's connection. A panic there ends the process. The transport may also call pass after the handler has returned, when
// the ResponseWriter must not be used any more.
type informational struct {
	mu sync.Mutex
	to http.ResponseWriter // nil once no further answer may pass
}

// pass is an httptrace.ClientTrace's Got1xxResponse.
func (i *informational) pass(code int, header textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.to == nil {
		return nil
	}
	h := i.to.Header()
	maps.Copy(h, http.Header(header))
	// With this field, net/http writes the header from a copy that lacks the field. Without it, net/http may still read h after
	// WriteHeader has returned, if the client has reset the stream.
	h["Content-Length"] = nil
	i.to.WriteHeader(code)
	clear(h)
	return nil
}

// end waits for a pass that is running, and lets no later one through.
func (i *informational) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.to = nil
}
