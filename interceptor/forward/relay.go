// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"errors"
	"net/http"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// errAnswer wraps what is wrong with an answer, so that it is not taken for something wrong with the request.
type errAnswer struct{ why string }

func (e errAnswer) Error() string { return "the app's answer is not HTTP: " + e.why }

// relay passes the answer on, of which in is the beginning. An error means that none of it was.
func (c *conn) relay(up *podConn, in *buffer) (outcome, error) {
	for {
		more, err := c.readAnswer(up, in)
		in = more
		if err != nil {
			up.buffers.put(in)
			return finished, err
		}
		switch {
		case c.answer.Status == http.StatusSwitchingProtocols:
			return c.relaySwitch(up, in)
		case c.answer.Status >= http.StatusOK:
			return c.relayFinal(up, in)
		}
		if err := c.inform(in); err != nil {
			up.buffers.put(in)
			return finished, err
		}
	}
}

// readAnswer parses the head of an answer from in, and reads until it is complete.
func (c *conn) readAnswer(up *podConn, in *buffer) (*buffer, error) {
	limit := c.engine.options.Limits.answerHead()
	parsed, seen := 0, 0 // as next has them
	for {
		n := 0
		if mayBeComplete(in.bytes(), parsed, seen) {
			parsed = in.len()
			var err error
			if n, err = c.answer.Parse(in.bytes()); err != nil {
				if n, err = c.repair(in, err); err != nil {
					return in, err
				}
			}
		}
		switch {
		case n > limit, n == 0 && in.len() > limit:
			return in, errAnswer{http1.HeadTooLarge.Error()}
		case n > 0:
			c.answerLength = n
			return in, nil
		}
		seen = in.len()
		if len(in.free()) == 0 {
			in = up.buffers.grow(in)
		}
		c.reading()
		got, err := up.Read(in.free())
		in.end += got
		if got == 0 && err != nil {
			return in, err
		}
	}
}

// repair makes the best of a head that is not quite one. It returns 0 if that is not complete.
func (c *conn) repair(in *buffer, bad error) (int, error) {
	if !bytes.HasPrefix(in.bytes(), []byte("HTTP/")) {
		return 0, errAnswer{bad.Error()} // what does not even begin like an answer may never end
	}
	head, length := http1.Repair(in.bytes())
	if length == 0 {
		return 0, nil
	}
	n, err := c.answer.Parse(head)
	if err != nil || n != len(head) {
		return 0, errAnswer{bad.Error()}
	}
	in.replace(0, append(head, in.bytes()[length:]...))
	return n, nil
}

// inform passes an informational answer on, which another one follows.
func (c *conn) inform(in *buffer) error {
	if c.req.Minor == 1 {
		if err := c.writeAnswer(in, nil, answerFields{}); err != nil {
			c.gone.Store(true)
			return err
		}
	}
	in.start += c.answerLength
	return nil
}

// relayFinal passes on the last answer to the request, and then decides what becomes of both connections.
func (c *conn) relayFinal(up *podConn, in *buffer) (outcome, error) {
	a := &c.answer
	rest := body{left: a.Length, chunked: a.Chunked}
	rest.chunks.Lenient = true
	switch {
	case c.isHead, !a.HasBody():
		rest = body{}
	case a.Chunked:
		rest.left = 0 // it is the chunks that tell the end
	}
	c.flow.src, c.flow.plain = up.sock, rest.chunked && c.req.Minor == 0
	first, n, err := rest.take(in.bytes()[c.answerLength:], c.flow.plain)
	if err != nil {
		up.buffers.put(in)
		return finished, errAnswer{err.Error()}
	}
	ends := c.last || c.flow.plain || rest.left == untilEnd || c.group.draining.Load()
	keeps := rest.left != untilEnd && c.answerLength+n == in.len() && !a.Close && (a.Minor == 1 || a.KeepAlive && !a.Chunked) // RFC 9112, 6.1
	in.replace(c.answerLength, first)
	c.answered(a.Status)
	events := !rest.ended() && c.listens(in.bytes())
	sticky := c.stickyLine(in.bytes())
	if rest.ended() && c.uploading == nil {
		// Given back before the client can know that it has its answer, so that its next request finds it.
		c.giveBack(up, keeps)
		up = nil
	}
	err = c.writeAnswer(in, first, answerFields{plain: c.flow.plain, add: c.connectionField(ends) + c.heldLine() + sticky})
	c.engine.buffers.put(in)
	switch {
	case err != nil:
	case events:
		err = c.copyEvents(&rest)
	default:
		err = c.flow.copy(&rest)
	}
	if c.flow.rest != nil {
		c.engine.buffers.put(c.flow.rest)
		c.flow.rest, keeps = nil, false
	}
	return c.settle(up, err, ends, keeps && err == nil), nil
}

// giveBack ends the use of a pod's connection. Keeps says that it can be used again.
func (c *conn) giveBack(up *podConn, keeps bool) {
	c.unwatch() // or up would be closed, while another request has it, if the client went now
	c.upstream.Store(nil)
	c.flow.src = nil
	if keeps && !up.single {
		up.pool.put(up, c.sent)
	} else {
		_ = up.Close()
	}
}

// settle decides what becomes of the client's connection when err has come of passing the answer on, and of the pod's if
// it is not given back yet. Ends says that the client was told that its connection ends, keeps that the pod's can be
// used again.
func (c *conn) settle(up *podConn, err error, ends, keeps bool) outcome {
	sent := true
	if up != nil {
		streamed := c.uploading != nil
		c.unwatch()
		sent = c.finishUpload(up, keeps)
		c.giveBack(up, keeps && sent && !streamed)
	} else {
		c.in.start += c.used
	}
	switch {
	case err != nil:
		c.truncate(err)
		return finished
	case !sent, ends && c.in != nil && c.in.len() > 0:
		return lingering
	case ends:
		return finished
	}
	return reusable
}

// connectionField is what the answer says of the client's connection.
func (c *conn) connectionField(ends bool) string {
	switch {
	case ends && c.req.Minor == 1:
		return "Connection: close\r\n"
	case !ends && c.req.Minor == 0:
		return "Connection: keep-alive\r\n"
	default:
		return ""
	}
}

// writeAnswer writes the answer's head as it goes to the client, and what follows it in the same buffer.
func (c *conn) writeAnswer(in *buffer, first []byte, fields answerFields) error {
	c.unwatch() // which may write too
	c.begun.Store(true)
	c.enter(phaseWrite)
	at := in.start + c.answerLength
	b := in.b[in.start:at]
	b[len("HTTP/1.")] = '1' // we speak 1.1, whatever the app does
	// What was in out is not needed any more: an answer has come.
	head, same := appendResponse(c.out[:0], &c.answer, b, fields)
	c.out = head
	start := in.start
	if !same {
		if start = at - len(head); start < 0 {
			if _, err := c.client.Write(head); err != nil {
				return err
			}
			start = at
		} else {
			copy(in.b[start:], head)
		}
	}
	_, err := c.client.Write(in.b[start : at+len(first)])
	return err
}

// truncate makes sure that the client does not take what it got for the whole answer.
func (c *conn) truncate(err error) {
	if _, ok := errors.AsType[readError](err); ok {
		_ = c.client.SetLinger(0) // the end of the connection would be the end of an answer without a length
	}
}

// relaySwitch passes on that the app switches protocols.
func (c *conn) relaySwitch(up *podConn, in *buffer) (outcome, error) {
	defer up.buffers.put(in)
	if c.streams || !switches(&c.req, c.in.bytes(), &c.answer, in.bytes()) {
		return finished, errAnswer{"it switches to a protocol that the request did not ask for"}
	}
	c.answered(c.answer.Status)
	c.opened = c.tab()
	if err := c.writeAnswer(in, in.bytes()[c.answerLength:], answerFields{upgrade: true, add: c.heldLine() + c.stickyLine(in.bytes())}); err != nil {
		c.gone.Store(true)
		return finished, err
	}
	c.in.start += c.used
	return upgraded, nil
}
