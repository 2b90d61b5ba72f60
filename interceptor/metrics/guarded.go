// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
)

// Verdict is what the API server says about a token.
type Verdict int

// The verdicts.
const (
	Unknown   Verdict = iota // it is nobody's, or not valid any more
	Forbidden                // it is somebody's who may not read metrics
	Allowed
)

// Reviewer asks the API server whose a token is, and whether he may read metrics.
type Reviewer interface {
	Review(ctx context.Context, token string) (Verdict, error)
}

// How long a verdict holds. One that allows holds until a right that is taken away has to have an effect, and one that refuses until a
// right that is given has to have one.
const (
	allowedFor = time.Minute
	refusedFor = 10 * time.Second
	// knownFor is how long a token that has been allowed is asked about without waiting for strangers.
	knownFor = time.Hour
)

// Bounds on what strangers can make us ask and keep. Somebody who sends tokens without end uses up the share of his own address, and
// tokens that have been allowed before do not wait behind his.
const (
	maxToken      = 16 << 10
	maxVerdicts   = 256 // that allow, and as many that refuse
	maxSources    = 1024
	maxReviews    = 10 // of strangers' tokens at a time
	reviewTimeout = 10 * time.Second
)

const (
	reviewRate  rate.Limit = 20 // of strangers' tokens a second
	reviewBurst            = 50
	sourceRate  rate.Limit = 1 // of those from one address
	sourceBurst            = 10
)

// errBusy says that there are too many strange tokens to ask about.
var errBusy = errors.New("too many tokens to ask about")

// Guarded serves h to whom the API server lets read metrics: with a bearer token of an account that may get the path /metrics.
func Guarded(h http.Handler, r Reviewer, log logr.Logger) http.Handler {
	return &guarded{
		next: h, reviewer: r, log: log, strangers: rate.NewLimiter(reviewRate, reviewBurst), places: make(chan struct{}, maxReviews),
		allowed: verdicts{}, refused: verdicts{}, sources: map[netip.Addr]*rate.Limiter{},
	}
}

type guarded struct {
	next      http.Handler
	reviewer  Reviewer
	log       logr.Logger
	strangers *rate.Limiter
	places    chan struct{}
	asking    singleflight.Group // by the token's hash

	mu               sync.Mutex // protects all below
	allowed, refused verdicts
	sources          map[netip.Addr]*rate.Limiter
	logged           time.Time
}

// verdicts are remembered by the tokens' hashes.
type verdicts map[[sha256.Size]byte]remembered

type remembered struct {
	verdict Verdict
	at      time.Time
}

// ServeHTTP implements http.Handler.
func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := bearer(r)
	if !ok {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "a bearer token is needed", http.StatusUnauthorized)
		return
	}
	verdict, err := g.judge(r.Context(), token, r.RemoteAddr)
	switch {
	case errors.Is(err, errBusy):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many unknown tokens", http.StatusTooManyRequests)
	case err != nil:
		g.complain(err)
		http.Error(w, "the API server cannot be asked about the token", http.StatusServiceUnavailable)
	case verdict == Allowed:
		g.next.ServeHTTP(w, r)
	case verdict == Forbidden:
		http.Error(w, "this account may not get /metrics: bind it to the ClusterRole whose name ends in metrics-reader", http.StatusForbidden)
	default:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		http.Error(w, "the token is not valid", http.StatusUnauthorized)
	}
}

// bearer returns the token of a request, if there is one that may be valid.
func bearer(r *http.Request) (string, bool) {
	fields := r.Header.Values("Authorization")
	if len(fields) != 1 {
		return "", false
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	token = strings.TrimLeft(token, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxToken {
		return "", false
	}
	valid := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._~+/=", c)
	}
	return token, strings.IndexFunc(token, func(c rune) bool { return !valid(c) }) < 0
}

// judge returns the verdict on a token from an address.
func (g *guarded) judge(ctx context.Context, token, from string) (Verdict, error) {
	key := sha256.Sum256([]byte(token))
	verdict, holds, known := g.recall(key)
	if holds {
		return verdict, nil
	}
	if !known {
		if !g.admit(from) {
			return Unknown, errBusy
		}
		select {
		case g.places <- struct{}{}:
			defer func() { <-g.places }()
		default:
			return Unknown, errBusy
		}
	}
	// Several scrapes may wait for one answer, so it does not end with the first of them.
	answer, err, _ := g.asking.Do(string(key[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
		defer cancel()
		verdict, err := g.reviewer.Review(ctx, token)
		if err == nil {
			g.remember(key, verdict)
		}
		return verdict, err
	})
	verdict, _ = answer.(Verdict)
	return verdict, err
}

// recall returns the verdict on a token if it still holds, and whether the token was allowed lately.
func (g *guarded) recall(key [sha256.Size]byte) (v Verdict, holds, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r, ok := g.allowed[key]; ok {
		age := time.Since(r.at)
		return r.verdict, age < allowedFor, age < knownFor
	}
	r, ok := g.refused[key]
	return r.verdict, ok && time.Since(r.at) < refusedFor, false
}

func (g *guarded) remember(key [sha256.Size]byte, v Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.allowed, key)
	delete(g.refused, key)
	if v == Allowed {
		g.allowed.put(key, v, knownFor)
		return
	}
	g.refused.put(key, v, refusedFor)
}

// put adds a verdict. If there are too many, those that have expired go, or else any one.
func (m verdicts) put(key [sha256.Size]byte, v Verdict, life time.Duration) {
	if len(m) >= maxVerdicts {
		for k, r := range m {
			if time.Since(r.at) >= life {
				delete(m, k)
			}
		}
	}
	makeRoom(m, maxVerdicts)
	m[key] = remembered{v, time.Now()}
}

// makeRoom deletes one entry, whichever it is, of a map that is full.
func makeRoom[K comparable, V any](m map[K]V, most int) {
	for k := range m {
		if len(m) < most {
			return
		}
		delete(m, k)
	}
}

// admit reports whether a stranger's token is to be asked about.
func (g *guarded) admit(from string) bool {
	source := sourceOf(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.sources[source]
	if l == nil {
		if len(g.sources) >= maxSources {
			for s, old := range g.sources {
				if old.Tokens() >= sourceBurst {
					delete(g.sources, s)
				}
			}
		}
		makeRoom(g.sources, maxSources)
		l = rate.NewLimiter(sourceRate, sourceBurst)
		g.sources[source] = l
	}
	return l.Allow() && g.strangers.Allow()
}

// sourceOf returns the address of a client. An IPv6 client has a whole network of them.
func sourceOf(address string) netip.Addr {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	ip = ip.Unmap().WithZone("")
	if network, err := ip.Prefix(64); ip.Is6() && err == nil {
		return network.Addr()
	}
	return ip
}

// complain logs once a minute that the API server does not answer.
func (g *guarded) complain(err error) {
	g.mu.Lock()
	due := time.Since(g.logged) >= time.Minute
	if due {
		g.logged = time.Now()
	}
	g.mu.Unlock()
	if due {
		g.log.Error(err, "Asking the API server who reads /metrics failed")
	}
}
