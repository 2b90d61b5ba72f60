// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"math"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// A server's words to a silent client count only when they are no longer a greeting, or after the client has spoken. They count once
// a tick.
func TestTalk(t *testing.T) {
	r := newRig(t, still(), "127.0.0.1:1")
	target := r.route.Target()
	at := func(d time.Duration) { r.clock.Store(int64(d)) }
	var spoken int
	begin := func() (*talk, wire.Waits, wire.Waits) {
		k := newTalk(r.Engine, target, false)
		k.clientSpoke = func() { spoken++ }
		return k, k.of(true), k.of(false)
	}

	at(0)
	k, client, server := begin()
	server.Writing()
	at(greetingFor - 1)
	server.Writing()
	if target.Idle() != math.MaxInt64 || k.silence() != 0 {
		t.Errorf("a greeting counts: idle for %s, silent for %s", target.Idle(), k.silence())
	}
	at(greetingFor)
	server.Writing()
	if target.Idle() == math.MaxInt64 {
		t.Error("what is listened to for long does not count")
	}
	at(greetingFor + time.Minute)
	if k.silence() != time.Minute || spoken != 0 {
		t.Errorf("silent for %s, and the client spoke %d times", k.silence(), spoken)
	}
	client.Writing()
	client.Writing()
	if k.silence() != 0 || spoken != 1 {
		t.Errorf("silent for %s, and the client spoke %d times", k.silence(), spoken)
	}

	r = newRig(t, still(), "127.0.0.1:1")
	target = r.route.Target()
	_, client, server = begin()
	server.Writing()
	if target.Idle() != math.MaxInt64 {
		t.Error("a greeting counts")
	}
	client.Writing()
	if target.Idle() == math.MaxInt64 {
		t.Error("a client that speaks does not count")
	}
}

// The side that ends first has ended the connection.
func TestTalkEnds(t *testing.T) {
	r := newRig(t, still(), "127.0.0.1:1")
	for _, client := range []bool{true, false} {
		k := newTalk(r.Engine, nil, true)
		ended := 0
		k.podEnded = func() { ended++ }
		k.end(client)
		k.end(!client)
		if (ended == 0) != client {
			t.Errorf("client first %t: the pod has ended it %d times", client, ended)
		}
	}
}
