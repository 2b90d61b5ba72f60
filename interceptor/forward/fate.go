// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

// outcome is what becomes of a client's connection after a request.
type outcome uint8

const (
	finished  outcome = iota // it ends
	reusable                 // it takes another request
	upgraded                 // it carries bytes from now on
	lingering                // it ends once the client, which still sends, has had time to read the answer
	rejected                 // likewise, but little of what it sends is read
)

// headFacts is what is known when the head of the last answer has come.
type headFacts struct {
	last       bool // the client said that it sends no other request
	draining   bool // the server takes no other request
	plain      bool // the answer's body is passed on without its chunks, so that only the end of the connection ends it
	untilEnd   bool // the pod ends the body with its connection
	surplus    bool // the pod has sent something behind the answer
	podCloses  bool // the pod says that its connection ends
	podKeeps   bool // the pod's version keeps connections, or the pod says that it does
	chunksOf10 bool // a pod of HTTP/1.0 sends chunks (RFC 9112, 6.1)
}

// fate is what becomes of the two connections behind an answer, as far as they are sound.
type fate struct {
	client bool // the client's takes another request
	pod    bool // the pod's does
}

func (h headFacts) fate() fate {
	return fate{
		client: !h.last && !h.draining && !h.plain && !h.untilEnd,
		pod:    !h.untilEnd && !h.surplus && !h.podCloses && h.podKeeps && !h.chunksOf10,
	}
}

// bodyFacts is what is known when the last answer has been passed on, or could not be.
type bodyFacts struct {
	failed   bool // it could not
	surplus  bool // the pod has sent something behind it
	streamed bool // the request's body was carried while the answer was waited for
	unsent   bool // some of that body was not
	more     bool // the client has sent something behind its request
}

// keepsPod says that the pod's connection can carry another request.
func (f fate) keepsPod(b bodyFacts) bool {
	return f.pod && !b.failed && !b.surplus && !b.streamed && !b.unsent
}

// outcome is what becomes of the client's connection.
func (f fate) outcome(b bodyFacts) outcome {
	switch {
	case b.failed:
		return finished
	case b.unsent, !f.client && b.more:
		return lingering
	case !f.client:
		return finished
	default:
		return reusable
	}
}
