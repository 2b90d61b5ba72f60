// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"iter"
	"time"
)

// manyFacts is how many facts are remembered before old ones are looked for.
const manyFacts = 1024

// facts are what a Memory knows about moments: the last one for each key. The caller of each method holds Memory.mu.
type facts[K comparable, V any] struct {
	kept time.Duration // how long a fact is remembered
	all  map[K]fact[V]
	left int // how many were left when old ones were dropped
}

type fact[V any] struct {
	at      int64 // by Memory.clock
	version uint64
	value   V
}

func newFacts[K comparable, V any](kept time.Duration) facts[K, V] {
	return facts[K, V]{kept: kept, all: map[K]fact[V]{}}
}

// set remembers what happened at a moment.
func (f *facts[K, V]) set(m *Memory, key K, at int64, value V) {
	if len(f.all) >= max(manyFacts, 2*f.left) {
		now := m.clock.now()
		for key, old := range f.all {
			if now-old.at > int64(f.kept) {
				delete(f.all, key)
			}
		}
		f.left = len(f.all)
	}
	m.version++
	f.all[key] = fact[V]{at: at, version: m.version, value: value}
}

// learn takes in what a peer says, unless it is old or known. What is nearly as recent as what is known is the same.
func (f *facts[K, V]) learn(m *Memory, key K, age time.Duration, value V) {
	at := m.clock.now() - int64(age)
	if old, known := f.all[key]; age < f.kept && (!known || at-old.at > int64(hops)) {
		f.set(m, key, at, value)
	}
}

// since yields the facts that are newer than a version, with their ages in place of their versions.
func (f *facts[K, V]) since(m *Memory, version uint64) iter.Seq2[K, aged[V]] {
	return func(yield func(K, aged[V]) bool) {
		now := m.clock.now()
		for key, one := range f.all {
			if one.version > version && !yield(key, aged[V]{time.Duration(now - one.at), one.value}) {
				return
			}
		}
	}
}

type aged[V any] struct {
	age   time.Duration
	value V
}
