// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"errors"
	"io"
)

// waits is told what a flow is about to wait for.
type waits interface {
	reading() // for its source to bring something
	writing() // for its destination to take it
}

// readError and writeError tell at which end of a flow something went wrong.
type (
	readError  struct{ error }
	writeError struct{ error }
)

func (e readError) Unwrap() error  { return e.error }
func (e writeError) Unwrap() error { return e.error }

// flow carries bytes from one connection to another: small amounts through a buffer that it has only meanwhile, larger
// ones within the kernel.
type flow struct {
	src, dst *sock
	waits    waits
	// plain takes the framing of chunks out.
	plain bool
	// rest is what src sent behind the end of the body. It is the caller's to put back.
	rest *buffer
	// bulk says that src brings more at a time than a buffer holds.
	bulk bool
}

// copy carries all that is left of b. The error is a readError, which wraps io.ErrUnexpectedEOF where src ended too
// early and an http1.Malformed where it sent what is no body, or a writeError.
func (f *flow) copy(b *body) error {
	f.bulk = false
	for !b.ended() {
		var err error
		if f.bulk && !f.plain && b.raw() != 0 {
			err = f.moveBulk(b)
		} else {
			err = f.moveBuffer(b)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && b.left == untilEnd:
			b.left = 0
		case errors.Is(err, io.EOF):
			return readError{io.ErrUnexpectedEOF}
		default:
			return err
		}
	}
	return nil
}

// moveBuffer carries what one read brings.
func (f *flow) moveBuffer(b *body) error {
	f.waits.reading()
	in, err := f.src.await()
	if err != nil {
		return readError{err}
	}
	f.bulk = len(in.free()) == 0
	pass, n, err := b.take(in.bytes(), f.plain)
	if err != nil {
		f.src.buffers.put(in)
		return readError{err}
	}
	if len(pass) > 0 {
		f.waits.writing()
		_, err = f.dst.Write(pass)
	}
	if in.start += n; in.len() > 0 && err == nil {
		f.rest = in
		return nil
	}
	f.src.buffers.put(in)
	if err != nil {
		return writeError{err}
	}
	return nil
}
