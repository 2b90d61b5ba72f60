// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

const step = 1 << 10

// account opens an account that the test closes.
func account(t *testing.T, p *Pool, group string) *Account {
	t.Helper()
	a := &Account{}
	p.Open(a, group)
	t.Cleanup(a.Close)
	return a
}

// fill lets the accounts take by turns until all are refused.
func fill(accounts ...*Account) {
	for taken := true; taken; {
		taken = false
		for _, a := range accounts {
			taken = a.Take(step) || taken
		}
	}
}

func used(accounts ...*Account) int64 {
	var n int64
	for _, a := range accounts {
		n += a.Used()
	}
	return n
}

// However many accounts take all that they get, what is left lets another one have its part, in their namespace or in another.
func TestNobodyTakesEverything(t *testing.T) {
	const limit = 64 << 20
	for _, tc := range []struct {
		groups, each     int
		greedy           float64 // of the pool, for all of them
		neighbour, other float64 // what another account gets, in their first group and in a group of its own
	}{
		{1, 1, .5, .125, .249},
		{1, 8, .64, .019, .179},
		{1, 1000, .667, .0001, .166},
		{8, 1, .889, .027, .055},
		{8, 8, .934, .003, .032},
		{100, 1, .991, .002, .0049},
	} {
		t.Run(fmt.Sprintf("%d of %d", tc.each, tc.groups), func(t *testing.T) {
			for name, group := range map[string]string{"neighbour": "0", "other": "another"} {
				p := NewPool(limit)
				var greedy []*Account
				for g := range tc.groups {
					for range tc.each {
						greedy = append(greedy, account(t, p, fmt.Sprint(g)))
					}
				}
				fill(greedy...)
				if got := float64(used(greedy...)) / limit; got > tc.greedy+.005 || got < tc.greedy-.02 {
					t.Errorf("the greedy have %.3f of the pool, want %.3f", got, tc.greedy)
				}
				a, least := account(t, p, group), tc.neighbour
				if group == "another" {
					least = tc.other
				}
				for a.Take(step) {
				}
				if got := float64(a.Used()) / limit; got < least {
					t.Errorf("%s gets %.4f of the pool, want %.4f", name, got, least)
				}
				if p.Used() > limit {
					t.Errorf("%d bytes of %d are used", p.Used(), limit)
				}
			}
		})
	}
}

// Who has more is refused before who has less.
func TestTheLargestIsRefusedFirst(t *testing.T) {
	p := NewPool(1 << 20)
	large, small := account(t, p, "a"), account(t, p, "b")
	fill(large)
	if large.Take(step) {
		t.Fatal("the large one is not refused")
	}
	if !small.Take(step) {
		t.Error("the small one is refused")
	}
	large.Give(large.Used() / 2)
	if !large.Take(step) {
		t.Error("the large one is refused although it has become small")
	}
}

func TestEverythingComesBack(t *testing.T) {
	p := NewPool(1 << 20)
	var all sync.WaitGroup
	for i := range 8 {
		a := account(t, p, fmt.Sprint(i%3))
		all.Go(func() {
			d := Draw{Account: a}
			defer d.Set(0)
			for range 2000 {
				before := d.Size()
				if n := rand.Int64N(256 << 10); !d.Set(n) && d.Size() != before {
					t.Error("a refusal has changed the draw")
				}
			}
		})
	}
	all.Wait()
	if p.Used() != 0 {
		t.Errorf("%d bytes are used by nobody", p.Used())
	}
}

func TestForceCountsAndIsNeverRefused(t *testing.T) {
	p := NewPool(1 << 20)
	a := account(t, p, "a")
	a.Force(2 << 20)
	if a.Take(1) || p.Used() != 2<<20 {
		t.Errorf("took more, with %d used", p.Used())
	}
	a.Give(2 << 20)
	if !a.Take(1) {
		t.Error("refused with everything given back")
	}
}

func TestFirstRefusal(t *testing.T) {
	p := NewPool(1 << 20)
	a := account(t, p, "a")
	fill(a)
	if !a.FirstRefusal() || a.FirstRefusal() {
		t.Error("the first refusal is not the first, or the second is")
	}
	a.Give(a.Used() / 4)
	if a.FirstRefusal() {
		t.Error("a refusal is new although the account still has most of it")
	}
	a.Give(a.Used() / 2)
	if !a.FirstRefusal() {
		t.Error("a refusal is not new although the account had little")
	}
}

func TestWithoutBounds(t *testing.T) {
	var pool *Pool
	var a Account
	pool.Open(&a, "a")
	for _, a := range []*Account{nil, &a} {
		if !a.Take(1 << 60) {
			t.Error("refused")
		}
		a.Give(1 << 60)
		a.Force(1)
		a.Close()
	}
}

func TestGroupsAreForgotten(t *testing.T) {
	p := NewPool(1 << 20)
	var a, b Account
	p.Open(&a, "a")
	p.Open(&b, "a")
	a.Close()
	if len(p.groups) != 1 {
		t.Error("a group is forgotten that has an account")
	}
	b.Close()
	if len(p.groups) != 0 {
		t.Error("a group without accounts is remembered")
	}
}

func BenchmarkTakeAndGive(b *testing.B) {
	p := NewPool(1 << 30)
	b.RunParallel(func(pb *testing.PB) {
		var a Account
		p.Open(&a, "a")
		defer a.Close()
		for pb.Next() {
			if a.Take(step) {
				a.Give(step)
			}
		}
	})
}
