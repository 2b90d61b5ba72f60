// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// upload carries the rest of a request's body to the pod, in a goroutine of its own, while the connection's goroutine waits for the
// answer: an app may answer before it has read the body, or while it reads.
type upload struct {
	x    *request1
	up   *podConn
	done chan struct{}
	// running is set as long as the client is being read.
	running atomic.Bool
	err     error // set before done is closed
}

// Reading implements wire.Waits. It does nothing: reading from the client shows when it goes, and an app may take its time.
func (u *upload) Reading() {}

// Writing implements wire.Waits. Once the answer is complete, each piece of the body gives the client the full time again for the
// next piece.
func (u *upload) Writing() { u.x.watch.advance(phaseHead, phaseHead) }

// sendStreaming sends the head and the part of the body that is here, begins to carry the rest, and waits for the answer.
func (x *request1) sendStreaming(up *podConn) (*wire.Buffer, error) {
	if !x.draw.Add(uploadCost) {
		return nil, x.conn.server.exhausted()
	}
	if _, err := up.Write(x.out); err != nil {
		return nil, err
	}
	u := &upload{x: x, up: up, done: make(chan struct{}), err: errRescued}
	u.running.Store(true)
	x.uploading = u
	x.client.Large = true
	x.watch.enter(phaseUpload)
	go u.run()
	return up.Await()
}

func (u *upload) run() {
	x := u.x
	defer close(u.done)
	defer rescue(x.conn.server.log, func() {
		u.running.Store(false)
		_ = u.up.Close()
	})
	f := wire.Flow{Src: x.client, Dst: u.up.Sock, Waits: u}
	u.err = f.Copy(&x.body)
	x.rest = f.Rest
	u.running.Store(false)
	if _, write := errors.AsType[wire.WriteError](u.err); u.err != nil && !write {
		_ = u.up.Close()
		return
	}
	// The answer is still to come. The app may have sent it before it closed the connection.
	x.watch.advance(phaseUpload, phaseAnswer)
}

// stopUpload ends the upload after err occurred at the pod, and returns the cause of err.
func (x *request1) stopUpload(err error) error {
	u := x.uploading
	if u == nil {
		return err
	}
	u.end()
	var read wire.ReadError
	var bad http1.MalformedError
	switch {
	case errors.As(u.err, &bad):
		return bad
	case errors.As(u.err, &read) && !errors.Is(u.err, os.ErrDeadlineExceeded):
		x.watch.gone.Store(true)
		return fmt.Errorf("reading the request's body: %w", context.Canceled)
	}
	return err
}

// finishUpload ends the upload after the whole answer has arrived, and reports whether the whole request was sent. While the app
// keeps its connection open, it may still be reading.
func (x *request1) finishUpload(up *podConn, keeps bool) bool {
	u := x.uploading
	if u == nil {
		x.in.Skip(x.used)
		return true
	}
	if keeps {
		x.watch.enter(phaseHead)
		u.await()
	} else {
		_ = up.Close()
		u.end()
	}
	return u.err == nil
}

// end makes the upload stop reading from the client, and waits for it to end.
func (u *upload) end() {
	u.x.client.InterruptUntil(u.done)
	u.takeRest()
}

// await waits for the end of the upload or of the pod's connection, after which the upload is useless.
func (u *upload) await() {
	client := u.x.client
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer rescue(u.x.conn.server.log, func() {})
		if u.up.AwaitGone(false) == nil {
			client.Interrupt()
		}
	}()
	<-u.done
	u.up.InterruptUntil(watched)
	client.Resume()
	u.takeRest()
}

// takeRest takes over the bytes that the upload read after the body.
func (u *upload) takeRest() {
	x := u.x
	x.uploading = nil
	x.client.Large = false
	x.dropIn()
	x.in, x.rest = x.rest, nil
}
