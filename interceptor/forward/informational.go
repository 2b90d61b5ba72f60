// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"maps"
	"net/http"
	"net/textproto"
	"sync"
)

// informational passes on the informational answers (1xx) to one request of HTTP/2. The transport calls pass from the goroutine
// that reads the pod's connection, in which a panic ends the process, and may do so after the handler has returned: then
// the ResponseWriter must not be used any more.
type informational struct {
	mu sync.Mutex
	to http.ResponseWriter // nil once there is to be no more
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
	// A header with this field is written from a copy without it. From h itself, net/http may go on writing after WriteHeader
	// has returned, if the client has reset the stream.
	h["Content-Length"] = nil
	i.to.WriteHeader(code)
	clear(h)
	return nil
}

// end waits for one that is under way and lets no other pass.
func (i *informational) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.to = nil
}
