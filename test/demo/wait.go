// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const pollInterval = 200 * time.Millisecond

// progress shows on a terminal that something takes a while, until the returned function is called. Elsewhere it shows
// nothing, since every update would be a line.
func (n *narrator) progress(what string) (done func()) {
	if !n.terminal {
		return func() {}
	}
	began := time.Now()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			fmt.Fprintf(n.out, "\r\033[K%s… %s, %.0f s", indent, what, time.Since(began).Seconds())
			select {
			case <-tick.C:
			case <-end:
				fmt.Fprint(n.out, "\r\033[K")
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(end); <-ended })
}

// A condition is something that the story waits for.
type condition struct {
	step, want string
	within     time.Duration
	// holds says whether the condition holds, and what was seen.
	holds func(context.Context) (holds bool, seen string, err error)
}

// await polls a condition and returns how long it took to hold.
func (n *narrator) await(ctx context.Context, c condition) (time.Duration, error) {
	began := time.Now()
	defer n.progress("waiting: " + c.step)()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		holds, seen, err := c.holds(ctx)
		took := time.Since(began)
		switch {
		case err != nil:
			return took, err
		case holds:
			return took, nil
		case took > c.within:
			return took, &failure{c.step, fmt.Sprintf("%s, within %s", c.want, c.within), seen}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return took, context.Cause(ctx)
		}
	}
}
