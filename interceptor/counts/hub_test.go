// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package counts

import (
	"slices"
	"testing"
)

var web, db = Key{"shop", "Deployment/web"}, Key{"shop", "StatefulSet/db"}

// some reports whether Some has an element, and takes it.
func some(f *Follower) bool {
	select {
	case <-f.Some():
		return true
	default:
		return false
	}
}

// looks reports whether Now has an element, and takes it.
func looks(f *Follower) bool {
	select {
	case <-f.Now():
		return true
	default:
		return false
	}
}

func TestFollowAll(t *testing.T) {
	h := NewHub()
	h.Changed(web) // nobody follows yet
	f, other := h.FollowAll(), h.FollowAll()
	if got := f.Take(); got != nil {
		t.Errorf("at first %v has changed", got)
	}
	h.Changed(web)
	h.Changed(web)
	h.Changed(db)
	if looks(f) || !some(f) || some(f) {
		t.Error("a change that can wait did not wait, or the follower has not heard of it, once")
	}
	got := f.Take()
	slices.SortFunc(got, func(a, b Key) int { return slices.Compare([]string{a.String()}, []string{b.String()}) })
	if !slices.Equal(got, []Key{web, db}) {
		t.Errorf("got %v", got)
	}
	if got := f.Take(); got != nil || some(f) {
		t.Errorf("got %v twice", got)
	}
	if h.Changed(db); !some(f) || len(f.Take()) != 1 {
		t.Error("what changes after that is not told")
	}
	h.Flush()
	h.Flush()
	if !looks(f) || looks(f) || !looks(other) {
		t.Error("flushing has a follower look once, however often it is asked")
	}
	if got := other.Take(); len(got) != 2 {
		t.Errorf("the other follower got %v, want what it did not take yet", got)
	}
	f.Close()
	h.Changed(web)
	h.Flush()
	if f.Take() != nil || looks(f) || !looks(other) {
		t.Error("a closed follower is told, or another one is not")
	}
}

func TestFollowOne(t *testing.T) {
	h := NewHub()
	all := h.FollowAll()
	if h.Poke(web) || h.Followed(web) {
		t.Error("followed before anybody does")
	}
	first, second := h.Follow(web), h.Follow(web)
	if !h.Followed(web) || h.Followed(db) {
		t.Error("it is not known who is followed")
	}
	if !looks(all) || !slices.Equal(all.Take(), []Key{web}) {
		t.Error("who follows all is not told of one that follows")
	}
	if !h.Poke(web) || !looks(first) || !looks(second) || looks(all) {
		t.Error("not all who follow the workload look, or others do")
	}
	if h.Poke(db); looks(first) {
		t.Error("another workload's follower looks")
	}
	h.Changed(web)
	if first.Take() != nil {
		t.Error("a follower of one gathers keys")
	}
	all.Take()
	first.Close()
	if !h.Followed(web) {
		t.Error("the end of one follower is that of another")
	}
	second.Close()
	if h.Followed(web) || len(h.each) != 0 {
		t.Error("followed although nobody does")
	}
	if !looks(all) || !slices.Equal(all.Take(), []Key{web}) {
		t.Error("who follows all is not told of the end")
	}
}
