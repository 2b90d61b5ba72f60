// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"sync/atomic"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// greetingFor is how long what a server says to a silent client is taken for a greeting, which a check reads before it
// closes. What it says later is a stream that the client listens to.
const greetingFor = 10 * time.Second

// talk counts the bytes of a connection that is carried byte by byte. Those of the server count once the client has
// spoken, or has listened for long.
type talk struct {
	engine *Engine
	target *route.Target // nil: nothing counts
	began  time.Duration // by the engine's clock
	// spoke says that the client has spoken, and last is when anybody has.
	spoke atomic.Bool
	last  atomic.Int64
	// podSpoke says that the app has spoken.
	podSpoke atomic.Bool
	ended    atomic.Bool // one of the sides has ended its direction
	// seen is the connection among the route's sources; nil while it is not among them.
	seen atomic.Pointer[route.Seen]
	// clientSpoke is called when the client speaks, no more than once a tick, and podEnded when the app is the first to end
	// its direction. Either may be nil.
	clientSpoke, podEnded func()
	// watch is opening's.
	watch *wire.Sniffer
}

// newTalk begins. Spoke says that the client has spoken before.
func newTalk(e *Engine, target *route.Target, spoke bool) *talk {
	t := &talk{engine: e, target: target, began: e.now()}
	t.last.Store(int64(t.began))
	t.spoke.Store(spoke)
	return t
}

// of counts the bytes that one of the sides sends.
func (t *talk) of(client bool) wire.Waits {
	return &touches{talk: t, client: client, last: -1}
}

// end says that one of the sides has ended its direction.
func (t *talk) end(client bool) {
	if !t.ended.Swap(true) && !client && t.podEnded != nil {
		t.podEnded()
	}
}

// silence is for how long neither side has said anything.
func (t *talk) silence() time.Duration { return t.engine.now() - time.Duration(t.last.Load()) }

// touches touches the target when bytes come from one side, no more than once a tick.
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
