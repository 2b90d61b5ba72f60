// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"testing"
	"time"
)

func FuzzParseIdentity(f *testing.F) {
	now := time.Now()
	id, err := newIdentity(nil, []string{testHost}, now)
	if err != nil {
		f.Fatal(err)
	}
	data, err := id.data()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[keyBundle], data[keyAuthorityKey], data[keyLeaf], data[keyLeafKey])
	f.Add([]byte(nil), []byte("-----BEGIN PRIVATE KEY-----"), []byte{0}, []byte(nil))
	f.Fuzz(func(t *testing.T, bundle, authorityKey, leaf, leafKey []byte) {
		id, err := parseIdentity(map[string][]byte{
			keyBundle: bundle, keyAuthorityKey: authorityKey, keyLeaf: leaf, keyLeafKey: leafKey,
		}, []string{testHost}, now)
		if err != nil {
			return
		}
		if (id.leaf == nil) == (id.leafProblem == "") {
			t.Errorf("leaf %v, problem %q", id.leaf, id.leafProblem)
		}
		next, reason, err := id.next([]string{testHost}, true, now)
		if err != nil {
			t.Error(err)
		}
		if next != nil && reason == "" {
			t.Error("a change without a reason")
		}
	})
}

// A leaf never outlives its authority, however soon that expires, and next eventually finds nothing due.
func TestLeafNeverOutlivesItsAuthority(t *testing.T) {
	names, begin := []string{testHost}, time.Now()
	for _, left := range []time.Duration{
		time.Second, time.Minute, publishedFor, 24 * time.Hour, leafLife - time.Hour, authorityOverlap, 2 * authorityOverlap,
	} {
		id, err := newIdentity(nil, names, begin)
		if err != nil {
			t.Fatal(err)
		}
		now := begin.Add(authorityLife - left)
		id.leaf, id.leafProblem = nil, "lost"
		changes := 0
		for ; changes < 10; changes++ {
			next, reason, err := id.next(names, true, now)
			if err != nil {
				t.Fatal(err)
			}
			if next == nil {
				break
			}
			id = next
			t.Logf("%s before the end: %s", left, reason)
			assertOutlived(t, id.leaf.Leaf, id.authorities)
		}
		if want := 2; left <= authorityOverlap && changes != want {
			t.Errorf("%s before the end: %d changes at once, want %d", left, changes, want)
		}
		if due := id.due(); !due.After(now) {
			t.Errorf("%s before the end: due at once", left)
		}
	}
}
