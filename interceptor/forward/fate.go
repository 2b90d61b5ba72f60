// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

// outcome is what happens to a client's connection after a request.
type outcome uint8

const (
	finished  outcome = iota // it ends
	reusable                 // it takes another request
	upgraded                 // it carries bytes from now on
	lingering                // it ends as soon as the client, which still sends, has had time to read the answer
	rejected                 // like lingering, but little of what the client sends is read
)

// headFacts is what is known once the head of the final answer has arrived.
type headFacts struct {
	last       bool // the client said that this is its last request
	draining   bool // the server takes no further request
	plain      bool // the body is passed on without chunks, so that only the end of the connection ends it
	untilEnd   bool // the pod ends the body by closing its connection
	surplus    bool // the pod has sent bytes after the answer
	podCloses  bool // the pod says that it will close its connection
	podKeeps   bool // the pod keeps its connection, by its HTTP version or because it says so
	chunksOf10 bool // an HTTP/1.0 pod sends chunks (RFC 9112, 6.1)
}

// fate says which of the two connections can take another request after an answer, if nothing fails.
type fate struct {
	client bool // the client's connection can
	pod    bool // the pod's connection can
}

func (h headFacts) fate() fate {
	return fate{
		client: !h.last && !h.draining && !h.plain && !h.untilEnd,
		pod:    !h.untilEnd && !h.surplus && !h.podCloses && h.podKeeps && !h.chunksOf10,
	}
}

// bodyFacts is what is known once the final answer has been passed on, or could not be.
type bodyFacts struct {
	failed   bool // the answer could not be passed on
	surplus  bool // the pod has sent bytes after the answer
	streamed bool // the request's body was being sent while we waited for the answer
	unsent   bool // part of the request's body was not sent
	more     bool // the client has sent bytes after its request
}

// keepsPod reports whether the pod's connection can carry another request.
func (f fate) keepsPod(b bodyFacts) bool {
	return f.pod && !b.failed && !b.surplus && !b.streamed && !b.unsent
}

// outcome decides what happens to the client's connection.
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
