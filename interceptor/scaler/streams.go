// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package scaler

import (
	"sync"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// streams are KEDA's open StreamIsActive calls.
type streams struct {
	// mu protects open.
	mu   sync.Mutex
	open map[route.Key]map[*stream]struct{}
}

// stream is one call; its goroutine looks at the workload anew whenever something is in poke.
type stream struct{ poke chan struct{} }

func newStreams() *streams { return &streams{open: map[route.Key]map[*stream]struct{}{}} }

func (s *streams) add(key route.Key) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[key] == nil {
		s.open[key] = map[*stream]struct{}{}
	}
	st := &stream{poke: make(chan struct{}, 1)}
	s.open[key][st] = struct{}{}
	return st
}

func (s *streams) remove(key route.Key, st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open[key], st)
	if len(s.open[key]) == 0 {
		delete(s.open, key)
	}
}

// has says whether a stream is open for key.
func (s *streams) has(key route.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open[key]) > 0
}

// poke has the streams of key look at it, and reports whether there are any.
func (s *streams) poke(key route.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.open[key] {
		select {
		case st.poke <- struct{}{}:
		default: // it is about to look
		}
	}
	return len(s.open[key]) > 0
}
