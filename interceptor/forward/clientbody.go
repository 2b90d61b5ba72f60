// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"io"
	"sync"
)

// errBodyUsed is returned for a read by an attempt that is over, and for a body that cannot be sent again.
var errBodyUsed = errors.New("the request's body has been sent in part, and cannot be sent again")

// clientBody is the body of an HTTP/2 request. The attempts to send the request read it one after the other.
type clientBody struct {
	from io.ReadCloser

	mu   sync.Mutex // protects all below
	read bool       // an attempt has begun to read
	keep bool       // a later attempt may need the bytes again
	kept []byte     // the bytes read so far, if they are kept
	end  error      // the error that ended the body, io.EOF or another one; nil while it goes on
}

// newClientBody returns the clientBody for a request's body, which may be nil. With keep, a second attempt can read a small body
// again.
func newClientBody(from io.ReadCloser, keep bool) *clientBody {
	if from == nil {
		return nil
	}
	return &clientBody{from: from, keep: keep}
}

// complete reports whether another attempt can send the whole body. A missing body is complete.
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

// again is an http.Request's GetBody. The transport calls it for a request that the pod has not processed.
func (b *clientBody) again() (io.ReadCloser, error) {
	if !b.complete() {
		return nil, errBodyUsed
	}
	return b.next(), nil
}

// attemptBody is the body as one attempt reads it. The transport closes it when the stream has ended, and reports the end only after
// the read has returned. The read may be waiting for a silent client, so Close has to end it by closing the client's body. A body
// that is unread or complete is left open for the next attempt.
type attemptBody struct {
	client *clientBody
	at     int  // how many of the kept bytes have been read
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

// readKept reads bytes that an earlier attempt has read. If kept is false, the caller has to read from the client.
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
