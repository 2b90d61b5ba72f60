// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// upload carries the rest of a request's body to the pod, in a goroutine of its own, while the answer is waited for:
// apps may answer before they have read it all, or as they read.
type upload struct {
	done chan struct{}
	// running is true until the client is no longer read.
	running atomic.Bool
	err     error // set before done is closed
}

// uploadWaits is for uploads: the client is seen to go by reading it, and an app may take its time. Where the answer is
// complete already, each piece of the body gives the client as long again for the next one.
type uploadWaits struct{ conn *conn }

func (uploadWaits) reading() {}

func (w uploadWaits) writing() {
	c := w.conn
	if s := state(c.state.Load()); s.phase() == phaseHead {
		c.state.CompareAndSwap(uint64(s), uint64(newState(phaseHead, c.engine.now(), s)))
	}
}

// noWaits is for tunnels that do not count.
type noWaits struct{}

func (noWaits) reading() {}
func (noWaits) writing() {}

// sendStreaming sends the head with what there is of the body, begins to carry the rest and waits for the answer.
func (c *conn) sendStreaming(up *podConn) (*buffer, error) {
	if _, err := up.Write(c.out); err != nil {
		return nil, err
	}
	u := &upload{done: make(chan struct{}), err: errRescued}
	u.running.Store(true)
	c.uploading = u
	c.client.large = true
	c.enter(phaseUpload)
	go c.runUpload(u, up)
	return up.await()
}

func (c *conn) runUpload(u *upload, up *podConn) {
	defer close(u.done)
	defer Rescue(c.engine.options.Log, func() {
		u.running.Store(false)
		_ = up.Close()
	})
	f := flow{src: c.client, dst: up.sock, waits: uploadWaits{c}}
	u.err = f.copy(&c.body)
	c.rest = f.rest
	u.running.Store(false)
	var write writeError
	switch {
	case u.err == nil, errors.As(u.err, &write):
		// The answer is still to come. If the app has closed, it may have answered before.
		s := c.state.Load()
		if state(s).phase() == phaseUpload {
			c.state.CompareAndSwap(s, uint64(newState(phaseAnswer, c.engine.now(), state(s))))
		}
	default:
		_ = up.Close()
	}
}

// stopUpload ends the upload after err at the pod, and returns what that comes from.
func (c *conn) stopUpload(err error) error {
	u := c.uploading
	if u == nil {
		return err
	}
	c.endUpload(u)
	var read readError
	var bad http1.Malformed
	switch {
	case errors.As(u.err, &bad):
		return bad
	case errors.As(u.err, &read) && !errors.Is(u.err, os.ErrDeadlineExceeded):
		c.gone.Store(true)
		return fmt.Errorf("reading the request's body: %w", context.Canceled)
	}
	return err
}

// endUpload makes the upload stop reading the client, and waits for its end.
func (c *conn) endUpload(u *upload) {
	_ = c.client.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection, whose reads end by themselves
	<-u.done
	_ = c.client.SetReadDeadline(time.Time{})
	c.takeRest()
}

// finishUpload ends the upload after the whole answer, and reports whether the whole request was sent. While the app
// keeps its connection open it may still be reading.
func (c *conn) finishUpload(up *podConn, keeps bool) bool {
	u := c.uploading
	if u == nil {
		c.in.start += c.used
		return true
	}
	if keeps {
		c.enter(phaseHead)
		c.awaitUpload(u, up)
	} else {
		_ = up.Close()
		c.endUpload(u)
	}
	return u.err == nil
}

// awaitUpload waits for the end of the upload, or of the pod's connection, behind which nobody wants it any more.
func (c *conn) awaitUpload(u *upload, up *podConn) {
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer Rescue(c.engine.options.Log, func() {})
		if up.awaitGone(false) == nil {
			_ = c.client.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection, whose reads end by themselves
		}
	}()
	<-u.done
	_ = up.SetReadDeadline(time.Unix(1, 0)) // so too
	<-watched
	_ = up.SetReadDeadline(time.Time{})
	_ = c.client.SetReadDeadline(time.Time{})
	c.takeRest()
}

// takeRest takes over from the upload what follows the body.
func (c *conn) takeRest() {
	c.uploading = nil
	c.client.large = false
	c.dropIn()
	c.in, c.rest = c.rest, nil
}
