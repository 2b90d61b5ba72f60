// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// maxBroken is how many pods may break off before they answer and the request is still sent to another one. The request may be what
// killed them, so it must not go to every pod.
const maxBroken = 1

// maxSmallBody is the length of the longest body that is kept for another attempt, or sent together with its head.
const maxSmallBody = 16 << 10

// idempotent reports whether a request with that method may be carried out twice without further effect (RFC 9110, 9.2.2).
func idempotent[M ~string | ~[]byte](method M) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// holder holds a request while it waits.
type holder interface {
	// hold calls wait with a context that ends when the wait is pointless: the client has gone, or everything is cut.
	hold(wait func(context.Context) error) error
}

// attempter sends a request to a pod, or connects a client with a pod.
type attempter interface {
	holder
	// try makes one attempt. If it returns an error, the use of the pod has ended, and failure says what is known.
	try(pod *route.Endpoint) (failure, error)
}

// failure is what is known about a failed attempt.
type failure struct {
	aborted     bool // the client has gone, or everything is cut
	answered    bool // part of an answer has arrived or was passed on
	incomplete  bool // part of the request is no longer here
	unsent      bool // nothing of the request was sent
	undelivered bool // according to the pod's kernel, nothing that was sent has reached the app
	ended       bool // the pod has closed the connection without a reset
	brokenOff   bool // the pod has closed or reset the connection
	idempotent  bool // carrying the request out twice does no harm
	reused      bool // the connection had carried requests before
}

// verdict is what to do after a failure.
type verdict uint8

const (
	giveUp  verdict = iota
	again           // send the request to a pod again
	suspect         // again, but count the pod as broken, and suspect it unless the connection was an old one
)

// verdict decides whether a request may be sent once more. broken is how many pods have broken off before. All protocols use this one
// rule:
//
//	it was aborted, part of an answer has come, or part of the request is gone  → give up
//	nothing of it was sent                                                      → again
//	it was not delivered, and the pod closed the connection without a reset:
//	  the close would have acknowledged data that arrived before it             → again
//	maxBroken pods have broken off before                                       → give up
//	it was not delivered, and the connection was reset                          → again, and suspect
//	the pod broke off, and the request may be carried out twice                 → again, and suspect
//	otherwise                                                                   → give up
func (f failure) verdict(broken int) verdict {
	switch {
	case f.aborted, f.answered, f.incomplete:
		return giveUp
	case f.unsent, f.undelivered && f.ended:
		return again
	case broken == maxBroken:
		return giveUp
	case f.undelivered, f.brokenOff && f.idempotent:
		return suspect
	default:
		return giveUp
	}
}

// attempt sends the request to a pod, and to another one where that is safe. Once is set if the request must not be sent twice. While
// the app may be falling asleep, such a request waits until that is known.
func (c *call) attempt(a attempter, once bool) error {
	if once && c.kind != ignored && !c.server.route.Settled() {
		if err := a.hold(c.server.route.Settle); err != nil {
			return err
		}
	}
	for {
		pod, err := c.pick(a)
		if err != nil {
			return err
		}
		f, err := a.try(pod)
		if err == nil {
			return nil
		}
		switch f.verdict(c.broken) {
		case again:
		case suspect:
			c.broken++
			if !f.reused {
				pod.Fail()
			}
		default:
			return err
		}
	}
}
