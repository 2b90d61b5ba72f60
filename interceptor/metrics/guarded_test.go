// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/metrics"
)

// reviewer knows tokens, and counts how often it is asked.
type reviewer struct {
	mu    sync.Mutex // protects the other fields
	known map[string]metrics.Verdict
	err   error
	takes time.Duration
	asked map[string]int
	now   int
	most  int
}

func (r *reviewer) Review(ctx context.Context, token string) (metrics.Verdict, error) {
	r.mu.Lock()
	if r.asked == nil {
		r.asked = map[string]int{}
	}
	r.asked[token]++
	r.now++
	r.most = max(r.most, r.now)
	v, err, takes := r.known[token], r.err, r.takes
	r.mu.Unlock()
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	r.mu.Lock()
	r.now--
	r.mu.Unlock()
	return v, err
}

func (r *reviewer) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *reviewer) sum() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, times := range r.asked {
		n += times
	}
	return n
}

func guarded(r *reviewer) http.Handler {
	numbers := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("numbers")) })
	return metrics.Guarded(numbers, r, logr.Discard())
}

// scrape returns the status of a scrape with these Authorization headers.
func scrape(t *testing.T, h http.Handler, from string, authorization ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.RemoteAddr = from
	for _, a := range authorization {
		r.Header.Add("Authorization", a)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if has := w.Body.String() == "numbers"; has != (w.Code == http.StatusOK) {
		t.Errorf("%d with %q", w.Code, w.Body)
	}
	return w
}

const prometheus = "10.0.0.9:4711"

func TestWhoReadsMetrics(t *testing.T) {
	r := &reviewer{known: map[string]metrics.Verdict{"good": metrics.Allowed, "eyJ.a-b_c~d+e/f==": metrics.Allowed, "weak": metrics.Forbidden}}
	h := guarded(r)
	for name, tc := range map[string]struct {
		authorization []string
		code, asked   int
	}{
		"nobody":          {nil, http.StatusUnauthorized, 0},
		"nothing":         {[]string{""}, http.StatusUnauthorized, 0},
		"no token":        {[]string{"Bearer"}, http.StatusUnauthorized, 0},
		"an empty token":  {[]string{"Bearer   "}, http.StatusUnauthorized, 0},
		"a password":      {[]string{"Basic Z29vZDpnb29k"}, http.StatusUnauthorized, 0},
		"two tokens":      {[]string{"Bearer good", "Bearer good"}, http.StatusUnauthorized, 0},
		"two in one":      {[]string{"Bearer good good"}, http.StatusUnauthorized, 0},
		"control codes":   {[]string{"Bearer go\x00od"}, http.StatusUnauthorized, 0},
		"not ASCII":       {[]string{"Bearer gööd"}, http.StatusUnauthorized, 0},
		"a long token":    {[]string{"Bearer " + strings.Repeat("x", 16<<10+1)}, http.StatusUnauthorized, 0},
		"a strange token": {[]string{"Bearer bad"}, http.StatusUnauthorized, 1},
		"without a right": {[]string{"Bearer weak"}, http.StatusForbidden, 1},
		"with the right":  {[]string{"Bearer good"}, http.StatusOK, 1},
		"in small":        {[]string{"bearer  eyJ.a-b_c~d+e/f=="}, http.StatusOK, 1},
	} {
		before := r.sum()
		w := scrape(t, h, prometheus, tc.authorization...)
		if w.Code != tc.code || r.sum()-before != tc.asked {
			t.Errorf("%s: got %d after %d questions, want %d after %d", name, w.Code, r.sum()-before, tc.code, tc.asked)
		}
		if challenged := strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer"); challenged != (tc.code == http.StatusUnauthorized) {
			t.Errorf("%s: %v", name, w.Header())
		}
	}
}

// A verdict holds for a while: what is given or taken away has an effect soon, and each scrape costs nothing.
func TestVerdictsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviewer{known: map[string]metrics.Verdict{"good": metrics.Allowed, "weak": metrics.Forbidden}}
		h := guarded(r)
		get := func(token string, code, asked int) {
			t.Helper()
			if w := scrape(t, h, prometheus, "Bearer "+token); w.Code != code || r.asked[token] != asked {
				t.Errorf("%s: %d after %d questions, want %d after %d", token, w.Code, r.asked[token], code, asked)
			}
		}
		for range 3 {
			get("good", http.StatusOK, 1)
			get("weak", http.StatusForbidden, 1)
			get("none", http.StatusUnauthorized, 1)
		}
		r.set(func() { r.known = map[string]metrics.Verdict{"weak": metrics.Allowed, "none": metrics.Allowed} })
		advance(10 * time.Second)
		get("good", http.StatusOK, 1)
		get("weak", http.StatusOK, 2)
		get("none", http.StatusOK, 2)
		advance(50 * time.Second)
		get("good", http.StatusUnauthorized, 2)
		get("weak", http.StatusOK, 2)
		r.set(func() { r.err = errors.New("connection refused") })
		advance(time.Minute)
		get("weak", http.StatusServiceUnavailable, 3) // what is not known is not allowed
		get("weak", http.StatusServiceUnavailable, 4)
		r.set(func() { r.err = nil })
		get("weak", http.StatusOK, 5)
	})
}

// advance lets the time of a synctest bubble pass.
func advance(d time.Duration) { <-time.After(d) }

// Who sends tokens without end makes us ask a bounded number of times, and keeps nobody else from scraping.
func TestFloodOfTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviewer{known: map[string]metrics.Verdict{"good": metrics.Allowed, "renewed": metrics.Allowed}}
		h := guarded(r)
		if w := scrape(t, h, prometheus, "Bearer good"); w.Code != http.StatusOK {
			t.Fatalf("got %d", w.Code)
		}
		codes := map[int]int{}
		flood := func(source string, n int) {
			for i := range n {
				codes[scrape(t, h, source, fmt.Sprintf("Bearer %s-%d-%d", strings.Map(plain, source), time.Now().UnixNano(), i)).Code]++
			}
		}
		for range 90 { // seconds
			flood("10.0.1.1:1000", 100)
			flood("[2001:db8::1]:1000", 50)
			flood("[2001:db8::2]:1000", 50) // of the same network
			advance(time.Second)
		}
		if asked := r.sum(); asked > 2*(90+10)+1 || codes[http.StatusUnauthorized]+1 != asked || codes[http.StatusTooManyRequests] < 17000 {
			t.Errorf("asked %d times: %v", asked, codes)
		}
		// The scraper's verdict has expired by now, and his next token is a stranger's.
		for _, token := range []string{"good", "renewed"} {
			if w := scrape(t, h, prometheus, "Bearer "+token); w.Code != http.StatusOK {
				t.Errorf("the scraper with %s gets %d", token, w.Code)
			}
		}
		before := r.sum()
		for i := range 5000 {
			flood(fmt.Sprintf("10.%d.%d.1:1", 2+i/200, i%200), 1)
		}
		if asked := r.sum() - before; asked > 50 {
			t.Errorf("many sources make us ask %d times at once", asked)
		}
		advance(2 * time.Minute)
		r.set(func() { r.known["good"] = metrics.Allowed })
		if w := scrape(t, h, prometheus, "Bearer good"); w.Code != http.StatusOK {
			t.Errorf("a flood from everywhere keeps the scraper out: %d", w.Code)
		}
	})
}

// plain keeps what may be in a token.
func plain(r rune) rune {
	if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r == '.' {
		return r
	}
	return '-'
}

// While the API server does not answer, few questions are open, and one is enough for all scrapes with the same token.
func TestSlowReviews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reviewer{known: map[string]metrics.Verdict{"good": metrics.Allowed}, takes: time.Hour}
		h := guarded(r)
		var scrapes sync.WaitGroup
		var unavailable, busy atomic.Int32
		for i := range 40 {
			for j := range 3 {
				scrapes.Go(func() {
					token := fmt.Sprintf("Bearer t%d", i)
					switch w := scrape(t, h, fmt.Sprintf("10.0.2.%d:%d", i, j), token); w.Code {
					case http.StatusServiceUnavailable:
						unavailable.Add(1)
					case http.StatusTooManyRequests:
						busy.Add(1)
					default:
						t.Errorf("got %d", w.Code)
					}
				})
			}
		}
		begin := time.Now()
		scrapes.Wait()
		if took := time.Since(begin); r.most > 10 || unavailable.Load() == 0 || unavailable.Load()+busy.Load() != 120 || took > 10*time.Second {
			t.Errorf("%d questions at a time, %d scrapes without an answer, %d refused, after %s", r.most, unavailable.Load(), busy.Load(), took)
		}
		r.set(func() { r.takes = time.Second })
		asked := r.sum()
		for range 5 {
			scrapes.Go(func() {
				if w := scrape(t, h, prometheus, "Bearer good"); w.Code != http.StatusOK {
					t.Errorf("got %d", w.Code)
				}
			})
		}
		scrapes.Wait()
		if r.sum() != asked+1 {
			t.Errorf("asked %d times for one token", r.sum()-asked)
		}
	})
}
