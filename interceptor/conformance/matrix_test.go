// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
)

// turns takes a turn in the background.
func turns(s session) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.turn() }()
	return done
}

// result waits for the result of a turn.
func result(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(within):
		t.Fatal("the exchange hangs")
		return nil
	}
}

// use makes a new client take a few turns and leave.
func (s speaker) use(t *testing.T, listen int32) {
	t.Helper()
	client := s.open(t, listen)
	defer client.leave()
	for range 3 {
		if err := result(t, turns(client)); err != nil {
			t.Error(err)
			return
		}
	}
}

func (n *node) setPods(listen int32, s speaker, addrs ...string) {
	n.set(unpublished(service(listen, s.route, addrs...)))
}

func TestMatrixWarm(t *testing.T) {
	for name, s := range speakers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, listen := serving(t, s.route, s.pod(t, openGate()))
			for range 3 {
				s.use(t, listen)
			}
			n.idle()
			if n.scales()+len(n.events()) > 0 {
				t.Error("it was woken")
			}
		})
	}
}

func TestMatrixCold(t *testing.T) {
	for name, s := range speakers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, listen := serving(t, s.route)
			client := s.open(t, listen)
			defer client.leave()
			first := turns(client)
			n.holds(1)
			eventually(t, "woken", func() bool { return len(n.events()) == 1 })
			n.setPods(listen, s, s.pod(t, openGate()))
			if err := result(t, first); err != nil {
				t.Fatal(err)
			}
			if err := result(t, turns(client)); err != nil {
				t.Error(err)
			}
			client.leave()
			n.idle()
		})
	}
}

// The only pod refuses at first, so that it is certainly tried. Then there is another pod.
func TestMatrixPodRefuses(t *testing.T) {
	for name, s := range speakers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dead, alive := closedPort(t), s.pod(t, openGate())
			n, listen := serving(t, s.route, dead)
			client := s.open(t, listen)
			defer client.leave()
			first := turns(client)
			n.holds(1)
			n.setPods(listen, s, dead, alive)
			if err := result(t, first); err != nil {
				t.Fatal(err)
			}
			client.leave()
			for range 5 {
				s.use(t, listen)
			}
			n.idle()
		})
	}
}

func TestMatrixClientGoesWhileHeld(t *testing.T) {
	for name, s := range speakers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, listen := serving(t, s.route)
			client := s.open(t, listen)
			first := turns(client)
			n.holds(1)
			client.leave()
			if err := result(t, first); err == nil {
				t.Error("got an answer from nobody")
			}
			n.idle()
			n.setPods(listen, s, s.pod(t, openGate()))
			s.use(t, listen)
			n.idle()
		})
	}
}

// A client that leaves while the app works frees its place, too.
func TestMatrixClientGoesWhileServed(t *testing.T) {
	for name, s := range speakers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate()
			n, listen := serving(t, s.route, s.pod(t, g))
			client := s.open(t, listen)
			if s.lasting {
				g.release()
				if err := result(t, turns(client)); err != nil {
					t.Fatal(err)
				}
				client.leave()
				n.idle()
				return
			}
			first := turns(client)
			<-g.arrived
			client.leave()
			if err := result(t, first); err == nil {
				t.Error("got an answer")
			}
			n.idle()
		})
	}
}

// During a drain, requests finish. What takes longer is cut when the time is over, and nothing hangs.
func TestMatrixDrain(t *testing.T) {
	for name, s := range speakers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGate()
			timeout := within
			if s.lasting {
				g.release()
				timeout = 400 * time.Millisecond
			}
			n := start(t, "a", nil, func(o *interceptor.Options) { o.DrainTimeout = timeout })
			listen := freePort(t)
			n.setPods(listen, s, s.pod(t, g))
			n.synced()
			n.waitReady()
			client := s.open(t, listen)
			defer client.leave()
			first := turns(client)
			if s.lasting {
				if err := result(t, first); err != nil {
					t.Fatal(err)
				}
			} else {
				<-g.arrived
			}
			began := time.Now()
			n.stop()
			awaitClosed(t, listen)
			if s.lasting {
				cut := make(chan error, 1)
				go func() {
					var err error
					for err == nil { // turns continue until the connection is cut
						err = client.turn()
					}
					cut <- err
				}()
				_ = result(t, cut)
				if took := time.Since(began); took < timeout*3/4 {
					t.Errorf("cut after %s already", took)
				}
			} else {
				g.release()
				if err := result(t, first); err != nil {
					t.Error(err)
				}
			}
			n.shutdown()
			if took := time.Since(began); took > timeout+soon || !s.lasting && took > within/2 {
				t.Errorf("the shutdown took %s", took)
			}
			n.idle()
		})
	}
}

// awaitClosed waits until nobody listens. It checks rarely, because each check is a connection that delays the end.
func awaitClosed(t *testing.T, listen int32) {
	t.Helper()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); accepts(listen); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not closed within %s", within)
		}
	}
}

// accepts reports whether somebody listens.
func accepts(listen int32) bool {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", listen))
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// Requests that are held when the drain begins still get their pod.
func TestMatrixHeldInADrain(t *testing.T) {
	for name, s := range speakers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, "a", nil, func(o *interceptor.Options) { o.DrainTimeout = within })
			listen := freePort(t)
			n.setPods(listen, s)
			n.synced()
			n.waitReady()
			client := s.open(t, listen)
			defer client.leave()
			first := turns(client)
			n.holds(1)
			n.stop()
			awaitClosed(t, listen)
			n.setPods(listen, s, s.pod(t, openGate()))
			if err := result(t, first); err != nil {
				t.Error(err)
			}
			client.leave()
			n.shutdown()
			n.idle()
		})
	}
}
