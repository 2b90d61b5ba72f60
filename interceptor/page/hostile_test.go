// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
)

// cost returns the shortest of some times that do takes.
func cost(do func()) time.Duration {
	least := time.Hour
	for range 20 {
		began := time.Now()
		do()
		least = min(least, time.Since(began))
	}
	return max(least, time.Microsecond)
}

// Themes that are made to be slow take no more than proportional time.
func TestHostileThemes(t *testing.T) {
	p := New(logr.Discard())
	for name, source := range map[string]func(n int) string{
		"parentheses": func(n int) string { return "{{" + strings.Repeat("(", n/2) + "." + strings.Repeat(")", n/2) + "}}" },
		"open":        func(n int) string { return "{{" + strings.Repeat("(", n) },
		"chains":      func(n int) string { return "{{" + strings.Repeat("(", n/5) + "." + strings.Repeat(").a", n/5) + "}}" },
		"hidden":      func(n int) string { return `{{"}}" ` + strings.Repeat("(", n) + "}}" },
		"ifs":         func(n int) string { return strings.Repeat("{{if .}}", n/16) + strings.Repeat("{{end}}", n/16) },
		"else ifs":    func(n int) string { return "{{if .}}" + strings.Repeat("{{else if .}}", n/14) + "{{end}}" },
		"tags":        func(n int) string { return strings.Repeat("{{if .}}<a{{end}}", n/18) },
		"variables":   func(n int) string { return strings.Repeat("{{$a:=1}}", n/10) },
		"pipes":       func(n int) string { return "{{." + strings.Repeat("|len", n/5) + "}}" },
		"fields":      func(n int) string { return "{{" + strings.Repeat(".a", n/3) + "}}" },
		"attributes":  func(n int) string { return "<a " + strings.Repeat("{{.}} ", n/7) },
		"blocks":      func(n int) string { return strings.Repeat("{{block \"a\" .}}", n/24) + strings.Repeat("{{end}}", n/24) },
	} {
		t.Run(name, func(t *testing.T) {
			const small, large = maxTheme / 32, maxTheme - 1
			parse := func(n int) time.Duration {
				s := source(n)
				return cost(func() {
					if _, err := p.parse("shop", s); err == nil {
						t.Fatal("it is accepted")
					}
				})
			}
			// Below the bounds a theme is parsed, and above it is refused at once. So the large one may even be the faster one.
			if a, b := parse(small), parse(large); b > 4*large/small*a {
				t.Errorf("%d bytes take %s and %d bytes %s", small, a, large, b)
			}
		})
	}
}

func TestHostileAcceptLanguage(t *testing.T) {
	l := newLanguages()
	for name, tag := range map[string]string{
		"languages": "de-DE,", "weights": "fr;q=0.1,", "long": "a-b-c-d-e-f-g-h,", "commas": ",", "dashes": "en-", "extensions": "en-u-ca-",
	} {
		t.Run(name, func(t *testing.T) {
			of := func(n int) time.Duration {
				accept := strings.Repeat(tag, n/len(tag))
				return cost(func() { l.of(accept) })
			}
			if a, b := of(maxAccept), of(56<<10); b > 4*a {
				t.Errorf("%d bytes take %s and 56 KiB %s", maxAccept, a, b)
			}
		})
	}
}

func TestFirstTags(t *testing.T) {
	long := strings.Repeat("en-US,", 100)
	for name, tc := range map[string]struct{ accept, want string }{
		"usual":     {"ko-KR,ko;q=0.9,en;q=0.8", "ko-KR,ko;q=0.9,en;q=0.8"},
		"empty":     {"", ""},
		"many":      {"ko," + long, "ko," + strings.Repeat("en-US,", 14) + "en-US"},
		"long":      {"ko," + strings.Repeat("x", 1000) + ",en", "ko"},
		"one":       {strings.Repeat("x", 1000), ""},
		"just fits": {strings.Repeat("x", maxAccept), strings.Repeat("x", maxAccept)},
	} {
		if got := firstTags(tc.accept); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
	l := newLanguages()
	if got := l.of("ko," + long).lang; got != "ko" {
		t.Errorf("got %s", got)
	}
}
