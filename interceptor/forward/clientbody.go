// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"io"
	"sync"
)

// errBodyUsed is returned by a read of a body that belongs to an earlier attempt, and for one that cannot be sent again.
var errBodyUsed = errors.New("the request's body has been sent in part, and cannot be sent again")

// clientBody is the body of a request of HTTP/2, which is read by one attempt to send it after the other.
type clientBody struct {
	from io.ReadCloser

	mu   sync.Mutex // protects all below
	read bool       // some attempt has begun to read
	keep bool       // what is read may be wanted again
	kept []byte     // what was read, if that is kept
	end  error      // how it ended, io.EOF or another error; nil if it has not
}

// newClientBody returns the clientBody for a request's body, which may be nil. With keep, a second attempt can read a
// small one again.
func newClientBody(from io.ReadCloser, keep bool) *clientBody {
	if from == nil {
		return nil
	}
	return &clientBody{from: from, keep: keep}
}

// complete says that another attempt can send all of the body. No body is complete.
func (b *clientBody) complete() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.read || b.keep && b.end == io.EOF //nolint:errorlint // io.Reader has it so
}

// next returns the body for the next attempt.
func (b *clientBody) next() io.ReadCloser { return &attemptBody{client: b} }

// again is an http.Request's GetBody: the transport calls it for requests that the pod has not processed.
func (b *clientBody) again() (io.ReadCloser, error) {
	if !b.complete() {
		return nil, errBodyUsed
	}
	return b.next(), nil
}

// attemptBody is the body as one attempt reads it. The transport closes it when the stream has ended, and waits for the
// end of a read before it reports that. So closing it has to end the read, which may wait for a client that says nothing:
// it closes the client's body. But a body that was not read, or that is complete, is left to the next attempt.
type attemptBody struct {
	client *clientBody
	at     int  // how much of what is kept has been read
	closed bool // protected by client.mu
}

// Read implements io.Reader.
func (a *attemptBody) Read(p []byte) (int, error) {
	b := a.client
	n, err, kept := a.readKept(p)
	if kept {
		return n, err
	}
	n, err = b.from.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end = err; b.keep {
		if b.keep = len(b.kept)+n <= maxSmallBody; b.keep {
			b.kept = append(b.kept, p[:n]...)
		} else {
			b.kept = nil
		}
	}
	a.at += n
	return n, err
}

// readKept reads of what an earlier attempt has read. With kept false the client has to be read.
func (a *attemptBody) readKept(p []byte) (n int, err error, kept bool) { //nolint:revive // the error is the read's
	b := a.client
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.closed {
		return 0, errBodyUsed, true
	}
	b.read = true
	switch {
	case a.at < len(b.kept):
		n = copy(p, b.kept[a.at:])
		a.at += n
		return n, nil, true
	default:
		return 0, b.end, b.end != nil
	}
}

// Close implements io.Closer.
func (a *attemptBody) Close() error {
	b := a.client
	b.mu.Lock()
	reading := b.read && b.end == nil && !a.closed
	a.closed = true
	b.mu.Unlock()
	if reading {
		return b.from.Close()
	}
	return nil
}
