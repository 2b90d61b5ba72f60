// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"errors"
	"sync"
	"sync/atomic"
)

// ErrExhausted is returned to those who would take more memory than their account may have.
var ErrExhausted = errors.New("this app's connections and requests use more memory than scale-to-zero has for one app at the moment")

// Pool is memory that accounts share.
type Pool struct {
	limit int64
	used  atomic.Int64

	mu     sync.Mutex // protects groups, and the group fields that say so
	groups map[string]*group
}

// group is what the accounts of one namespace use together.
type group struct {
	name     string
	used     atomic.Int64
	accounts int // protected by Pool.mu
}

// NewPool returns a Pool of limit bytes.
func NewPool(limit int64) *Pool { return &Pool{limit: limit, groups: map[string]*group{}} }

// Limit returns how many bytes the accounts may use together.
func (p *Pool) Limit() int64 { return p.limit }

// Used returns how many bytes are in use.
func (p *Pool) Used() int64 { return p.used.Load() }

// Open makes a an account of this Pool, in the group with that name. It must be closed. A nil Pool has no bounds, and so has a.
func (p *Pool) Open(a *Account, name string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.groups[name]
	if g == nil {
		g = &group{name: name}
		p.groups[name] = g
	}
	g.accounts++
	a.pool, a.group = p, g
}

// fits reports whether an account may use own bytes while its group uses grouped bytes, and all use used bytes. Half of what the
// account has and half of what its group has count again:
//
//	own/2 + grouped/2 + used ≤ limit
//
// So a single account gets half of the pool, and n accounts of different groups get 1/(n+1) of it each. However much all of them ask
// for, such a share stays free, and another account may take half of it. The accounts of one group get less each, the more of them
// there are: a group as a whole never gets more than two thirds. These are the dynamic thresholds of shared-memory switches
// (Choudhury and Hahne, 1998), in two levels.
func (p *Pool) fits(own, grouped, used int64) bool { return own/2+grouped/2+used <= p.limit }

// Account is what one route uses of a Pool. The zero Account has no bounds, and neither has nil. All methods may be called at the same
// time.
type Account struct {
	pool  *Pool
	group *group
	used  atomic.Int64
	// told is what the account used when it was last refused for the first time; 0 if it has used little since.
	told atomic.Int64
}

// Take takes n bytes, or reports false. The caller must give them back.
func (a *Account) Take(n int64) bool {
	if a == nil || a.pool == nil || n <= 0 {
		return true
	}
	own, grouped, used := a.used.Add(n), a.group.used.Add(n), a.pool.used.Add(n)
	if a.pool.fits(own, grouped, used) {
		return true
	}
	a.Give(n)
	return false
}

// FirstRefusal reports whether a refusal is the first one since the account used less than half of what it uses now.
func (a *Account) FirstRefusal() bool { return a.told.CompareAndSwap(0, max(1, a.used.Load())) }

// Force takes n bytes that are in use already. They count, and are never refused.
func (a *Account) Force(n int64) {
	if a == nil || a.pool == nil {
		return
	}
	a.used.Add(n)
	a.group.used.Add(n)
	a.pool.used.Add(n)
}

// Give gives n bytes back.
func (a *Account) Give(n int64) {
	if a == nil || a.pool == nil || n <= 0 {
		return
	}
	own := a.used.Add(-n)
	a.group.used.Add(-n)
	a.pool.used.Add(-n)
	if own < 0 {
		panic("budget: more was given back than taken")
	}
	if told := a.told.Load(); told != 0 && own < told/2 {
		a.told.Store(0)
	}
}

// Used returns how many bytes the account uses.
func (a *Account) Used() int64 { return a.used.Load() }

// Close forgets the account. What it still uses counts until it is given back.
func (a *Account) Close() {
	if a == nil || a.pool == nil {
		return
	}
	p, g := a.pool, a.group
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.accounts--; g.accounts == 0 && p.groups[g.name] == g {
		delete(p.groups, g.name)
	}
}

// Draw is what one user has taken from an account. It is not safe for concurrent use.
type Draw struct {
	Account *Account
	n       int64
}

// Set makes the draw n bytes, by taking or giving back what is missing. If that would be too much, it stays as it is, and Set reports
// false.
func (d *Draw) Set(n int64) bool {
	if n > d.n && !d.Account.Take(n-d.n) {
		return false
	}
	if n < d.n {
		d.Account.Give(d.n - n)
	}
	d.n = n
	return true
}

// Add is Set for n bytes more.
func (d *Draw) Add(n int64) bool { return d.Set(d.n + n) }

// Size returns how many bytes the draw has.
func (d *Draw) Size() int64 { return d.n }
