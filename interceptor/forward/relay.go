// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"errors"
	"net/http"

	"github.com/scale-to-zero/scale-to-zero/interceptor/answers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/headers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// relay passes on the answer to an HTTP/1.1 request. The answer comes from up.
type relay struct {
	*request1
	up *podConn
}

func unreadable(why string) error { return &answers.UnreadableError{Why: why} }

// relay passes the answer on. in holds its beginning. An error means that nothing was passed on.
func (x *request1) relay(up *podConn, in *wire.Buffer) (outcome, error) {
	r := relay{x, up}
	for {
		more, err := r.readHead(in)
		in = more
		if err != nil {
			r.drop(in)
			return finished, err
		}
		switch {
		case x.answer.Status == http.StatusSwitchingProtocols:
			return r.switching(in)
		case x.answer.Status >= http.StatusOK:
			return r.final(in)
		}
		if err := r.inform(in); err != nil {
			r.drop(in)
			return finished, err
		}
	}
}

func (r relay) drop(in *wire.Buffer) { r.conn.server.engine.buffers.Put(in) }

// readHead parses the head of an answer from in, and reads until it is complete.
func (r relay) readHead(in *wire.Buffer) (*wire.Buffer, error) {
	engine := r.conn.server.engine
	limit := engine.options.Limits.answerHead()
	parsed, seen := 0, 0 // as in next
	for {
		n := 0
		if mayBeComplete(in.Bytes(), parsed, seen) {
			parsed = in.Len()
			var err error
			if n, err = r.answer.Parse(in.Bytes()); err != nil {
				if n, err = r.repair(in, err); err != nil {
					return in, err
				}
			}
		}
		switch {
		case n > limit, n == 0 && in.Len() > limit:
			return in, unreadable(http1.ErrHeadTooLarge.Error())
		case n > 0:
			r.answerLength = n
			return in, nil
		}
		seen = in.Len()
		if len(in.Free()) == 0 {
			in = engine.buffers.Grow(in)
		}
		r.Reading()
		got, err := r.up.Read(in.Free())
		in.Extend(got)
		if got == 0 && err != nil {
			return in, err
		}
	}
}

// repair makes the best of a head that is not quite valid. It returns 0 if the head is not complete.
func (r relay) repair(in *wire.Buffer, bad error) (int, error) {
	if !bytes.HasPrefix(in.Bytes(), []byte("HTTP/")) {
		return 0, unreadable(bad.Error()) // bytes that do not even begin like an answer may never end
	}
	head, length := http1.Repair(in.Bytes())
	if length == 0 {
		return 0, nil
	}
	n, err := r.answer.Parse(head)
	if err != nil || n != len(head) {
		return 0, unreadable(bad.Error())
	}
	in.Replace(0, append(head, in.Bytes()[length:]...))
	return n, nil
}

// inform passes an informational answer on. Another answer follows it.
func (r relay) inform(in *wire.Buffer) error {
	if r.req.Minor == 1 {
		if err := r.write(in, nil, headers.Answer{}); err != nil {
			r.watch.gone.Store(true)
			return err
		}
	}
	in.Skip(r.answerLength)
	return nil
}

// final passes on the final answer to the request, and then decides what happens to both connections.
func (r relay) final(in *wire.Buffer) (outcome, error) {
	a, c := &r.answer, r.conn
	rest := wire.Body{Left: a.Length, Chunked: a.Chunked}
	rest.Chunks.Lenient = true
	switch {
	case r.isHead, !a.HasBody():
		rest = wire.Body{}
	case a.Chunked:
		rest.Left = 0 // the last chunk shows the end
	}
	c.flow.Src, c.flow.Plain = r.up.Sock, rest.Chunked && r.req.Minor == 0
	first, n, err := rest.Consume(in.Bytes()[r.answerLength:], c.flow.Plain)
	if err != nil {
		r.drop(in)
		return finished, unreadable(err.Error())
	}
	fate := headFacts{
		last: r.last, draining: c.server.draining.Load(), plain: c.flow.Plain, untilEnd: rest.Left == wire.UntilEnd,
		surplus: r.answerLength+n != in.Len(), podCloses: a.Close, podKeeps: a.Minor == 1 || a.KeepAlive,
		chunksOf10: a.Minor == 0 && a.Chunked,
	}.fate()
	in.Replace(r.answerLength, first)
	r.answered(a.Status)
	c.server.heardAnswer(a.Minor, a.Status)
	events := !rest.Ended() && r.listens(in.Bytes())
	sticky := r.stickyLine(in.Bytes())
	given := rest.Ended() && r.uploading == nil
	if given {
		// Give the connection back before the client can know that its answer is complete. So its next request finds the connection.
		r.giveBack(fate.keepsPod(bodyFacts{}))
	}
	err = r.write(in, first, headers.Answer{Plain: c.flow.Plain, Add: r.connectionLine(fate) + r.heldLine() + sticky})
	r.drop(in)
	switch {
	case err != nil:
	case events:
		err = r.copyEvents(&rest)
	default:
		err = c.flow.Copy(&rest)
	}
	return r.finish(fate, given, err), nil
}

// finish ends the use of the pod's connection, unless it was given back already, and decides what happens to the client's connection.
// err is the result of passing the answer on.
func (r relay) finish(f fate, given bool, err error) outcome {
	c := r.conn
	facts := bodyFacts{failed: err != nil, surplus: c.flow.Rest != nil, streamed: r.uploading != nil}
	if c.flow.Rest != nil {
		r.drop(c.flow.Rest)
		c.flow.Rest = nil
	}
	if given {
		c.in.Skip(r.used)
	} else {
		r.watch.unwatch()
		facts.unsent = !r.finishUpload(r.up, f.pod && !facts.failed && !facts.surplus)
		r.giveBack(f.keepsPod(facts))
	}
	if err != nil {
		r.truncate(err)
	}
	facts.more = c.in != nil && c.in.Len() > 0
	return f.outcome(facts)
}

// giveBack ends the use of the pod's connection. keeps is set if it can be used again.
func (r relay) giveBack(keeps bool) {
	r.watch.unwatch() // first: a client that goes now would close up, which another request may already use
	r.watch.up.Store(nil)
	r.flow.Src = nil
	if keeps && !r.up.single {
		r.up.pool.put(r.up, r.sent)
	} else {
		_ = r.up.Close()
	}
}

// connectionLine returns the answer's Connection line for the client, if it needs one.
func (r relay) connectionLine(f fate) string {
	switch {
	case !f.client && r.req.Minor == 1:
		return "Connection: close\r\n"
	case f.client && r.req.Minor == 0:
		return "Connection: keep-alive\r\n"
	default:
		return ""
	}
}

// heldLine returns the line that says how long the request was held; empty for the many that were not.
func (r relay) heldLine() string {
	held := r.conn.server.engine.answers.HeldFor(&r.visit)
	if held == "" {
		return ""
	}
	return answers.HeldField + ": " + held + "\r\n"
}

// stickyLine returns the line that sets our cookie, if it has to be set. b holds the answer.
func (r relay) stickyLine(b []byte) string {
	s := r.conn.server.route.Sticky()
	if s == nil || r.kind == ignored {
		return ""
	}
	var session []byte
	issued := false
	for _, f := range r.answer.Fields {
		if f.Name == http1.Other && http1.EqualFold(b[f.Start:f.NameEnd], "set-cookie") {
			if attributes, ok := issues(s, b[f.ValueStart:f.ValueEnd]); ok {
				session, issued = attributes, true
			}
		}
	}
	value := r.setCookie(s, r.pod, session, issued)
	if value == "" {
		return ""
	}
	return "Set-Cookie: " + value + "\r\n"
}

// listens reports whether the answer in b is an event stream that the client has asked for.
func (r relay) listens(b []byte) bool {
	if r.answer.Status != http.StatusOK || !r.opensTab() {
		return false
	}
	for _, f := range r.answer.Fields {
		if http1.EqualFold(b[f.Start:f.NameEnd], "content-type") {
			return r.hears(r.answer.Status, string(b[f.ValueStart:f.ValueEnd]))
		}
	}
	return false
}

// copyEvents passes on the rest of an event stream.
func (r relay) copyEvents(rest *wire.Body) error {
	flow := &r.flow
	talk := r.hear()
	flow.Waits = wire.Both{A: r.conn, B: talk.of(false)}
	defer func() { flow.Waits = r.conn }()
	err := flow.Copy(rest)
	if _, gone := errors.AsType[wire.WriteError](err); !gone && !r.watch.gone.Load() && r.conn.server.base.Err() == nil {
		r.heard(talk)
	}
	return err
}

// write sends the client the answer's head, and the bytes that follow it in the same buffer.
func (r relay) write(in *wire.Buffer, first []byte, fields headers.Answer) error {
	c := r.conn
	c.watch.unwatch() // the watch may write too
	c.watch.begun.Store(true)
	c.watch.enter(phaseWrite)
	b := in.Bytes()[:r.answerLength]
	b[len("HTTP/1.")] = '1' // we speak 1.1, whatever the app speaks
	// The request in out is not needed any more, since an answer has arrived.
	head, same := headers.AppendAnswer(c.out[:0], &c.answer, b, fields)
	c.out = head
	if same {
		_, err := c.client.Write(in.Bytes()[:r.answerLength+len(first)])
		return err
	}
	if in.SetHead(r.answerLength, head) {
		_, err := c.client.Write(in.Bytes()[:len(head)+len(first)])
		r.answerLength = len(head)
		return err
	}
	if _, err := c.client.Write(head); err != nil {
		return err
	}
	_, err := c.client.Write(in.Bytes()[r.answerLength : r.answerLength+len(first)])
	return err
}

// truncate makes sure that the client does not take a partial answer for the whole one.
func (r relay) truncate(err error) {
	if _, ok := errors.AsType[wire.ReadError](err); ok {
		_ = r.client.SetLinger(0) // reset the connection: a regular close would complete an answer without a length
	}
}

// switching passes on an answer by which the app switches protocols.
func (r relay) switching(in *wire.Buffer) (outcome, error) {
	defer r.drop(in)
	c := r.conn
	if r.streams || !headers.Switches(&c.req, c.in.Bytes(), &c.answer, in.Bytes()) {
		return finished, unreadable("it switches to a protocol that the request did not ask for")
	}
	if !c.draw.Add(tunnelCost) {
		return finished, c.server.exhausted()
	}
	r.answered(c.answer.Status)
	c.server.heardAnswer(c.answer.Minor, c.answer.Status)
	r.opened = r.tab()
	add := r.heldLine() + r.stickyLine(in.Bytes())
	if err := r.write(in, in.Bytes()[r.answerLength:], headers.Answer{Upgrade: true, Add: add}); err != nil {
		r.watch.gone.Store(true)
		return finished, err
	}
	c.in.Skip(r.used)
	return upgraded, nil
}
