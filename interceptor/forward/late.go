// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"io"
)

// errLateHTTP ends a connection whose client has begun a line that turns out to be HTTP after it was passed on.
var errLateHTTP = errors.New("the client speaks HTTP on a connection that had to be taken for bytes")

// watchFrom returns a sniffer for what follows early; nil if there is no early.
func watchFrom(early []byte) *sniffer {
	if len(early) == 0 {
		return nil
	}
	s := &sniffer{}
	s.feed(early)
	return s
}

// pass carries bytes from src to dst until it is sure that they are not HTTP.
func (s *sniffer) pass(dst, src *sock, w waits) error {
	for s.kind == KindUndecided {
		w.reading()
		in, err := src.await()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return readError{err}
		}
		if s.feed(in.bytes()) == KindHTTP {
			src.buffers.put(in)
			return readError{errLateHTTP}
		}
		w.writing()
		_, err = dst.Write(in.bytes())
		src.buffers.put(in)
		if err != nil {
			return writeError{err}
		}
	}
	return nil
}
