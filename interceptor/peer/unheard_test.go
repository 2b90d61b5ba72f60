// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/counts"
)

// TestUnheardPeers: counts are incomplete while a peer is not heard that may have requests. One that has never been ready, or has been
// ending for long, has none; it may be listed for as long as its node is gone.
func TestUnheardPeers(t *testing.T) {
	ready, starting := Peer{Name: "a", Addr: "10.0.0.1"}, Peer{Name: "a", Addr: "10.0.0.1", Unready: true}
	for name, tc := range map[string]struct {
		steps [][]Peer
		age   time.Duration // of what was last seen of it
		never bool
		zero  bool
	}{
		"none":                            {nil, 0, true, false},
		"one that is ready":               {[][]Peer{{ready}}, 0, false, true},
		"one that has been ready long":    {[][]Peer{{ready}}, time.Hour, false, true},
		"one that begins":                 {[][]Peer{{starting}}, 0, false, true},
		"one that does not get ready":     {[][]Peer{{starting}}, time.Hour, true, false},
		"one that ends":                   {[][]Peer{{ready}, {starting}}, 0, false, true},
		"one that does not end":           {[][]Peer{{ready}, {starting}}, time.Hour, true, false},
		"one that is gone":                {[][]Peer{{ready}, {}}, 0, false, false},
		"one that is gone, and came back": {[][]Peer{{ready}, {}, {ready}}, 0, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPool(PoolOptions{
				Name: "me", Dial: func(Peer) string { return "127.0.0.1:1" }, Hub: counts.NewHub(), Log: logr.Discard(),
			})
			defer p.Close()
			for _, step := range tc.steps {
				p.SetPeers(step)
			}
			p.mu.Lock()
			for _, known := range p.peers {
				known.seen = known.seen.Add(-tc.age)
			}
			p.mu.Unlock()
			got := p.SinceLost()
			if (got == never) != tc.never || (got == 0) != tc.zero {
				t.Errorf("%s since something was lost", got)
			}
		})
	}
}
