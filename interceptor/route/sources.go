// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxSources is how many sources of requests a route distinguishes. If there are more, the rarest are dropped.
	maxSources = 16
	// How many bytes of a source are kept at most.
	maxSourceMethod = 16
	maxSourceText   = 64
	// maxSegments is how many segments of a path distinguish sources. Later segments are often IDs.
	maxSegments = 2
)

// sources counts a route's requests by their source. A request from a known source takes no lock and allocates nothing. Only one new
// source is added at a time; requests that arrive meanwhile from other new sources count only towards the total. That is enough,
// because a frequent source comes again.
//
// A new source replaces the one with the fewest requests and inherits its count (Metwally's Space-Saving), so that no frequent source
// is missed. inherited is how much of the count may belong to other sources.
type sources struct {
	clock clock
	seed  maphash.Seed

	all   atomic.Int64 // requests from all sources
	keys  [maxSources]atomic.Uint64
	slots [maxSources]slot

	mu sync.Mutex // serializes the adding of sources, and protects the slot fields that say so
}

// sightings are the sources of a route's requests. They are allocated at the first request, because most routes of a large cluster
// never see one.
type sightings struct {
	clock   clock
	sources atomic.Pointer[sources]
	since   atomic.Int64 // when the present counting period began, by clock
}

// slot is one source. It is not given to another source while any of its requests is open.
type slot struct {
	count, busy, last atomic.Int64
	open              atomic.Int32

	// Protected by sources.mu:
	inherited           int64
	method, path, agent text
	more                bool // the path continues
	remote              text // if empty, addr counts
	addr                netip.Addr
}

// text is a copy of bounded length that needs no allocation of its own.
type text struct {
	b [maxSourceText]byte
	n int
}

func (t *text) set(b []byte) { t.n = copy(t.b[:], b) }

func (t *text) String() string { return string(t.b[:t.n]) }

// Sighting describes a request. If Method is empty, it describes a connection that carries plain bytes.
type Sighting struct {
	Method, Target, Agent []byte
	// Remote is the visitor's address according to a proxy; empty if no proxy names it.
	Remote []byte
	// Client is the address that connected to us.
	Client netip.Addr
}

// Seen is a request that has been counted. The zero value stands for a request whose source is not known.
type Seen struct {
	sources *sources
	key     uint64
	at      int
}

// See counts a request by its source. The caller must call End when the request is over.
func (r *sightings) See(s *Sighting) Seen {
	known := r.sources.Load()
	if known == nil {
		r.sources.CompareAndSwap(nil, newSources(r.clock))
		known = r.sources.Load()
	}
	return known.see(s)
}

func (s *sources) see(v *Sighting) Seen {
	s.all.Add(1)
	method, agent := clipped(v.Method, maxSourceMethod), clipped(v.Agent, maxSourceText)
	path, more := pathPrefix(v.Target)
	remote := clipped(v.Remote, maxSourceText)
	key := s.key(method, path, agent, remote, v.Client)
	if seen := s.find(key); seen.sources != nil || !s.mu.TryLock() {
		return seen
	}
	defer s.mu.Unlock()
	if seen := s.find(key); seen.sources != nil {
		return seen // another request has just added it
	}
	at := s.room()
	if at < 0 {
		return Seen{}
	}
	e := &s.slots[at]
	e.method.set(method)
	e.path.set(path)
	e.agent.set(agent)
	e.remote.set(remote)
	e.addr, e.more = v.Client, more
	e.inherited = e.count.Load()
	e.busy.Store(0)
	s.keys[at].Store(key)
	return s.find(key)
}

// find counts a request from the source with this key, if the source is known.
func (s *sources) find(key uint64) Seen {
	for at := range s.keys {
		if s.keys[at].Load() != key {
			continue
		}
		e := &s.slots[at]
		e.open.Add(1)
		if s.keys[at].Load() != key { // room clears the key first and reads open afterwards
			e.open.Add(-1)
			return Seen{}
		}
		e.count.Add(1)
		e.last.Store(s.clock.now())
		return Seen{s, key, at}
	}
	return Seen{}
}

// room frees a slot for a source. It returns -1 if all sources have open requests. The caller holds mu.
func (s *sources) room() int {
	order := [maxSources]int{}
	for at := range order {
		order[at] = at
	}
	slices.SortFunc(order[:], func(a, b int) int {
		used := func(at int) int64 {
			if s.keys[at].Load() == 0 {
				return -1
			}
			return s.slots[at].count.Load()
		}
		return cmp.Compare(used(a), used(b))
	})
	for _, at := range order {
		key := s.keys[at].Swap(0)
		if s.slots[at].open.Load() == 0 {
			return at
		}
		s.keys[at].Store(key)
	}
	return -1
}

func (s *sources) key(method, path, agent, remote []byte, client netip.Addr) uint64 {
	h := hashAddr(client)
	for _, part := range [...][]byte{method, path, agent, remote} {
		h = mix(h ^ maphash.Bytes(s.seed, part))
	}
	return max(h, 1)
}

func clipped(b []byte, limit int) []byte { return b[:min(len(b), limit)] }

// pathPrefix returns the first segments of a target's path, and whether the path continues.
func pathPrefix(target []byte) (prefix []byte, more bool) {
	path := pathOf(target)
	at := 0
	for range maxSegments {
		next := bytes.IndexByte(path[min(at+1, len(path)):], '/')
		if next < 0 {
			return clipped(path, maxSourceText), len(path) > maxSourceText
		}
		at += 1 + next
	}
	return clipped(path[:at+1], maxSourceText), true
}

// End notes that the request is over.
func (s Seen) End() {
	if s.sources != nil {
		s.sources.slots[s.at].open.Add(-1)
	}
}

// Again reopens a request that has ended and continues as an upgraded connection. It does not count twice.
func (s Seen) Again() Seen {
	if s.sources == nil {
		return s
	}
	e := &s.sources.slots[s.at]
	e.open.Add(1)
	if s.sources.keys[s.at].Load() != s.key {
		e.open.Add(-1)
		return Seen{}
	}
	return s
}

// Busy notes that bytes pass on the connection.
func (s Seen) Busy() {
	if s.sources != nil {
		e := &s.sources.slots[s.at]
		e.busy.Add(1)
		e.last.Store(s.sources.clock.now())
	}
}

// Source is where requests, or the bytes of a connection, come from.
type Source struct {
	Visit Visit // Method, Path, Remote and Agent
	// More is set if the paths continue after Path.
	More bool
	// Requests is a lower bound of the number of requests. Busy is how often bytes were seen on connections.
	Requests, Busy int64
	// Open is how many requests and connections are open. Last is the time since the last of them was seen.
	Open int
	Last time.Duration
}

// Sources are the sources of a period, the busiest first.
type Sources struct {
	Period time.Duration
	// All counts the requests of the period, whether or not their sources are known.
	All  int64
	Each []Source
}

// TakeSources returns the sources of the period that ends now, and begins a new one.
func (r *sightings) TakeSources() Sources {
	now := r.clock.now()
	out := Sources{Period: time.Duration(now - r.since.Swap(now))}
	s := r.sources.Load()
	if s == nil {
		return out
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out.All = s.all.Swap(0)
	for at := range s.keys {
		e := &s.slots[at]
		count, busy := e.count.Swap(0)-e.inherited, e.busy.Swap(0)
		e.inherited = 0
		if s.keys[at].Load() == 0 || count <= 0 && busy == 0 && e.open.Load() == 0 {
			continue
		}
		remote := e.remote.String()
		if remote == "" && e.addr.IsValid() {
			remote = e.addr.String()
		}
		out.Each = append(out.Each, Source{
			Visit: Visit{Method: e.method.String(), Path: e.path.String(), Remote: remote, Agent: e.agent.String()},
			More:  e.more, Requests: max(count, 0), Busy: busy, Open: int(e.open.Load()), Last: time.Duration(now - e.last.Load()),
		})
	}
	slices.SortStableFunc(out.Each, func(a, b Source) int {
		return cmp.Or(cmp.Compare(b.Requests+b.Busy, a.Requests+a.Busy), cmp.Compare(b.Open, a.Open), cmp.Compare(a.Last, b.Last))
	})
	return out
}

func newSources(c clock) *sources {
	return &sources{clock: c, seed: maphash.MakeSeed()}
}
