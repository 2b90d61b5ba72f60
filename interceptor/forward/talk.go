// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// greetingFor is how long the words of a server to a silent client are taken for a greeting: a check reads the greeting and closes.
// Later bytes are a stream to which the client listens.
const greetingFor = 10 * time.Second

// talk counts the bytes of a connection that is carried byte by byte. The server's bytes count once the client has spoken, or has
// listened for long.
type talk struct {
	engine *Engine
	target *route.Target // nil if nothing counts
	began  time.Duration // by the engine's clock
	// spoke is set once the client has spoken. last is when either side last spoke.
	spoke atomic.Bool
	last  atomic.Int64
	// podSpoke is set once the app has spoken.
	podSpoke atomic.Bool
	ended    atomic.Bool // one side has closed its direction
	// seen is the connection's entry in the route's sources; nil if it has none.
	seen atomic.Pointer[route.Seen]
	// clientSpoke is called when the client speaks, at most once a tick. podEnded is called if the app is the first to close its
	// direction. Either may be nil.
	clientSpoke, podEnded func()
	// watch is opening's.
	watch *wire.Sniffer
}

// newTalk returns a talk that begins now. Spoke is set if the client has spoken before.
func newTalk(e *Engine, target *route.Target, spoke bool) *talk {
	t := &talk{engine: e, target: target, began: e.now()}
	t.last.Store(int64(t.began))
	t.spoke.Store(spoke)
	return t
}

// of returns a wire.Waits that counts the bytes from one side.
func (t *talk) of(client bool) wire.Waits {
	return &touches{talk: t, client: client, last: -1}
}

// end notes that one side has closed its direction.
func (t *talk) end(client bool) {
	if !t.ended.Swap(true) && !client && t.podEnded != nil {
		t.podEnded()
	}
}

// silence returns for how long neither side has spoken.
func (t *talk) silence() time.Duration { return t.engine.now() - time.Duration(t.last.Load()) }

// touches touches the target when bytes come from one side, at most once a tick.
type touches struct {
	talk   *talk
	client bool
	last   time.Duration
}

// Reading implements wire.Waits.
func (t *touches) Reading() {}

// Writing implements wire.Waits.
func (t *touches) Writing() {
	if !t.client && !t.talk.podSpoke.Load() {
		t.talk.podSpoke.Store(true)
	}
	if t.talk.target == nil {
		return
	}
	now := t.talk.engine.now()
	if now == t.last {
		return
	}
	t.talk.last.Store(int64(now))
	switch {
	case t.client:
		t.talk.spoke.Store(true)
		if t.talk.clientSpoke != nil {
			t.talk.clientSpoke()
		}
	case !t.talk.spoke.Load() && now-t.talk.began < greetingFor:
		return
	}
	t.last = now
	t.talk.target.Touch()
	if seen := t.talk.seen.Load(); seen != nil {
		seen.Busy()
	}
}
