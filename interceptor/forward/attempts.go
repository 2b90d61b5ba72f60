// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// maxBroken is how many pods may break off before they answer for the request still to go to another one. The request
// may be what killed them, so it must not be carried through all of them.
const maxBroken = 1

// maxSmallBody is the longest body that is kept for another attempt, or sent together with its head.
const maxSmallBody = 16 << 10

// idempotent says that carrying out a request with that method twice does no more than carrying it out once (RFC 9110,
// 9.2.2).
func idempotent[M ~string | ~[]byte](method M) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

// holder lets a request wait.
type holder interface {
	// hold calls wait with a context that ends when the wait is in vain: the client has gone, or everything is cut.
	hold(wait func(context.Context) error) error
}

// attempter sends a request to a pod, or connects a client with it.
type attempter interface {
	holder
	// try does so. With an error the pod's use has ended, and the failure says what is known.
	try(pod *route.Endpoint) (failure, error)
}

// failure is what is known of an attempt that came to nothing.
type failure struct {
	aborted     bool // the client has gone, or everything is cut
	answered    bool // some of an answer has come or gone on
	incomplete  bool // some of the request is not here any more
	unsent      bool // nothing of the request has left
	undelivered bool // what has left has never reached the app, as the pod's kernel says
	ended       bool // the pod has ended the connection in order
	brokenOff   bool // the pod has ended or reset the connection
	idempotent  bool // carrying the request out twice does no harm
	reused      bool // the connection had carried requests before
}

// verdict is what follows from a failure.
type verdict uint8

const (
	giveUp  verdict = iota
	again           // the request goes to a pod again
	suspect         // so too, but the pod that broke off counts, and is suspect unless the connection was an old one
)

// verdict decides whether a request may be sent once more, after broken pods have broken off. This is the one rule for all
// protocols:
//
//	it was aborted, some of an answer has come, or some of the request is gone   → give up
//	nothing of it has left                                                      → again
//	it was not delivered, and the pod ended the connection in order: the end
//	  would have acknowledged what had arrived before it                        → again
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

// attempt has a pod answer the request, or another one where that is safe. Once says that it must not be sent twice: where the
// app may just be falling asleep, such a request waits until that is known.
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
