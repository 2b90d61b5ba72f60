// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"io"
)

// Waits is told what a flow is about to wait for.
type Waits interface {
	Reading() // for its source to bring something
	Writing() // for its destination to take it
}

// ReadError and WriteError say at which end of a flow an error occurred.
type (
	// ReadError is an error of the source.
	ReadError struct{ Err error }
	// WriteError is an error of the destination.
	WriteError struct{ Err error }
)

func (e ReadError) Error() string  { return e.Err.Error() }
func (e ReadError) Unwrap() error  { return e.Err }
func (e WriteError) Error() string { return e.Err.Error() }
func (e WriteError) Unwrap() error { return e.Err }

// NoWaits does nothing.
type NoWaits struct{}

// Reading implements Waits.
func (NoWaits) Reading() {}

// Writing implements Waits.
func (NoWaits) Writing() {}

// Both passes the calls on to two Waits.
type Both struct{ A, B Waits }

// Reading implements Waits.
func (w Both) Reading() {
	w.A.Reading()
	w.B.Reading()
}

// Writing implements Waits.
func (w Both) Writing() {
	w.A.Writing()
	w.B.Writing()
}

// Flow carries bytes from one connection to another. Small amounts pass through a buffer that it borrows for the moment, larger ones
// stay within the kernel.
type Flow struct {
	Src, Dst *Sock
	Waits    Waits
	// Plain removes the framing of chunks.
	Plain bool
	// Rest is what Src sent after the end of the body. The caller has to put it back.
	Rest *Buffer
	// bulk is set if Src brings more at a time than a buffer holds.
	bulk bool
}

// Copy carries the rest of b. The error is a ReadError or a WriteError. A ReadError wraps io.ErrUnexpectedEOF if Src ended too early,
// and an http1.MalformedError if Src sent an invalid body.
func (f *Flow) Copy(b *Body) error {
	f.bulk = false
	for !b.Ended() {
		var err error
		if f.bulk && !f.Plain && b.raw() != 0 {
			err = f.moveBulk(b)
		} else {
			err = f.moveBuffer(b)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && b.Left == UntilEnd:
			b.Left = 0
		case errors.Is(err, io.EOF):
			return ReadError{io.ErrUnexpectedEOF}
		default:
			return err
		}
	}
	return nil
}

// moveBuffer carries the bytes of one read.
func (f *Flow) moveBuffer(b *Body) error {
	f.Waits.Reading()
	in, err := f.Src.Await()
	if err != nil {
		return ReadError{err}
	}
	f.bulk = len(in.Free()) == 0
	pass, n, err := b.Consume(in.Bytes(), f.Plain)
	if err != nil {
		f.Src.buffers.Put(in)
		return ReadError{err}
	}
	if len(pass) > 0 {
		f.Waits.Writing()
		_, err = f.Dst.Write(pass)
	}
	if in.start += n; in.Len() > 0 && err == nil {
		f.Rest = in
		return nil
	}
	f.Src.buffers.Put(in)
	if err != nil {
		return WriteError{err}
	}
	return nil
}
