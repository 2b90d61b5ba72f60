// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func wait(p api.Progress, elapsed time.Duration) Wait {
	return Wait{Namespace: "shop", App: "web", Progress: p, Elapsed: elapsed}
}

func took(starts ...time.Duration) api.Progress {
	p := api.Progress{Stage: api.StagePulling}
	for _, d := range starts {
		p.Starts = append(p.Starts, api.Duration(d))
	}
	return p
}

func TestLanguages(t *testing.T) {
	l := newLanguages()
	for accept, want := range map[string]string{
		"":                                    "en",
		"ko":                                  "ko",
		"ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7": "ko",
		"en-US,en;q=0.9,ko;q=0.8":             "en",
		"en;q=0.3, ko;q=0.7":                  "ko",
		"fr-FR,fr;q=0.9,ko;q=0.5,en;q=0.3":    "ko",
		"ko;q=0, en;q=0.1":                    "en",
		"ja":                                  "en",
		"*":                                   "en",
		"KO":                                  "ko",
		"\x00;;q=,,":                          "en",
		strings.Repeat("ko-", 2000):           "en",
		"en;q=1;level=1, ko":                  "en",
	} {
		if got := l.of(accept).lang; got != want {
			t.Errorf("%.40q is %s, want %s", accept, got, want)
		}
	}
	for _, stage := range []string{"", api.StageScheduling, api.StagePulling, api.StageStarting, api.StageNotReady} {
		for _, texts := range l.all {
			if texts.stages[stage] == "" {
				t.Errorf("%s has no words for stage %q", texts.lang, stage)
			}
		}
	}
}

// ran is a start whose containers run since a time after the wake, and whose app took as long as app the last times.
func ran(since, app time.Duration, p api.Progress) Wait {
	p.Running, p.Apps = api.Duration(since), []api.Duration{api.Duration(app)}
	return wait(p, 7*time.Second)
}

func TestEstimate(t *testing.T) {
	pages := New(logr.Discard())
	s := time.Second
	for name, tc := range map[string]struct {
		wait           Wait
		accept         string
		estimate       string
		late           bool
		usual, elapsed int
	}{
		"nothing known":         {wait(took(), 3*s), "", "", false, 0, 3},
		"one":                   {wait(took(7200*time.Millisecond), 3*s), "", "Usually ready in about 8 seconds.", false, 8, 3},
		"at once":               {wait(took(time.Millisecond), 0), "", "Usually ready in about 1 second.", false, 1, 0},
		"the median":            {wait(took(90*s, 4*s, 5*s), 3*s), "", "Usually ready in about 5 seconds.", false, 5, 3},
		"longer":                {wait(took(61*s), 3*s), "", "Usually ready in about 65 seconds.", false, 65, 3},
		"minutes":               {wait(took(200*s), 3*s), "", "Usually ready in about 4 minutes.", false, 240, 3},
		"late":                  {wait(took(8*s), 8*s), "", "This takes longer than usual, which is about 8 seconds.", true, 8, 8},
		"in Korean":             {wait(took(8*s), s), "ko", "준비되기까지 보통 8초쯤 걸립니다.", false, 8, 1},
		"late in Korean":        {wait(took(200*s), time.Hour), "ko", "평소(4분쯤)보다 오래 걸리고 있습니다.", true, 240, 3600},
		"a slow pull this time": {ran(6*s, 4*s, took(5*s)), "", "Usually ready in about 10 seconds.", false, 10, 7},
		"no pull this time":     {ran(s, 4*s, took(60*s)), "", "This takes longer than usual, which is about 5 seconds.", true, 5, 7},
		"which is failed":       {wait(api.Progress{Failing: "no image", Starts: []api.Duration{api.Duration(s)}}, 0), "", "", false, 1, 0},
	} {
		v := pages.view(&tc.wait, pages.languages.of(tc.accept))
		if v.Estimate != tc.estimate || v.Late != tc.late || v.Usual != tc.usual || v.Elapsed != tc.elapsed {
			t.Errorf("%s: got %q, late %v, usual %d, elapsed %d", name, v.Estimate, v.Late, v.Usual, v.Elapsed)
		}
	}
}

// The state of a start changes with each of its parts, and when the start becomes late.
func TestState(t *testing.T) {
	first := wait(took(8*time.Second), 3*time.Second)
	if left := first.UntilLate(); left != 5*time.Second {
		t.Errorf("late in %s", left)
	}
	later := wait(took(8*time.Second), 7*time.Second)
	if first.State() != later.State() {
		t.Error("a state that has not changed has another name")
	}
	seen := map[string]Wait{first.State(): first}
	for _, w := range []Wait{
		wait(took(8*time.Second), 8*time.Second),
		wait(took(9*time.Second), 3*time.Second),
		wait(api.Progress{Stage: api.StageStarting, Starts: first.Progress.Starts}, 3*time.Second),
		wait(api.Progress{Stage: api.StagePulling, Failing: "a", Reason: "b"}, 0),
		wait(api.Progress{Stage: api.StagePulling, Failing: "ab"}, 0),
	} {
		if other, known := seen[w.State()]; known {
			t.Errorf("%+v and %+v have one name", w, other)
		}
		seen[w.State()] = w
	}
}

// The reason of a failure is in the visitor's language if there is a translation, and always in the original words.
func TestWhy(t *testing.T) {
	pages := New(logr.Discard())
	for name, tc := range map[string]struct {
		accept, reason, failing string
		want                    string
	}{
		"in English": {"en", "ImagePullBackOff", "its image x cannot be pulled", "its image x cannot be pulled"},
		"in Korean": {
			"ko", "ImagePullBackOff", "its image x cannot be pulled",
			"앱의 이미지를 내려받을 수 없습니다. (its image x cannot be pulled)",
		},
		"no words":         {"ko", "Other", "it is broken", "it is broken"},
		"nothing keeps it": {"ko", "ImagePullBackOff", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got Report
			b := pages.Report(wait(api.Progress{Reason: tc.reason, Failing: tc.failing}, 0), tc.accept)
			if err := json.Unmarshal(b, &got); err != nil || got.Why != tc.want {
				t.Errorf("got %q and %v, want %q", got.Why, err, tc.want)
			}
		})
	}
}

// A page is complete and describes itself, and its policy allows only what the page contains.
func TestRender(t *testing.T) {
	pages := New(logr.Discard())
	for accept, want := range map[string][]string{
		"":   {`<html lang="en" data-stage="pulling">`, "<title>web is starting</title>", "Downloading the app", "about 8 seconds"},
		"ko": {`<html lang="ko" data-stage="pulling">`, "<title>web 시작 중</title>", "앱을 내려받고", "보통 8초쯤"},
	} {
		doc := pages.Render(wait(took(8*time.Second), 3*time.Second), accept)
		html := string(doc.Body)
		want = append(want, `<meta name="robots" content="noindex">`, `<noscript><meta http-equiv="refresh" content="2"></noscript>`,
			`aria-live="polite"`, "prefers-color-scheme:dark", "--usual:8s;--elapsed:3s", "opened- 3 *1000")
		for _, text := range want {
			if !strings.Contains(html, text) {
				t.Errorf("the page in %s lacks %q", doc.Lang, text)
			}
		}
		if len(html) > 12<<10 {
			t.Errorf("the page has %d bytes", len(html))
		}
		nonces := regexp.MustCompile(`<(?:style|script) nonce="(\w+)"`).FindAllStringSubmatch(html, -1)
		if len(nonces) != 2 || strings.Count(doc.Policy, "'nonce-"+nonces[0][1]+"'") != 2 || nonces[0][1] != nonces[1][1] {
			t.Errorf("nonces %q, policy %q", nonces, doc.Policy)
		}
		if other := pages.Render(wait(took(), 0), accept); other.Policy == doc.Policy {
			t.Error("two pages have the same nonce")
		}
		if found := regexp.MustCompile(`(?i)(src|href|url\()\s*=?["']?(https?:)?//`).FindString(html); found != "" {
			t.Errorf("the page uses something from outside: %q", found)
		}
	}
	failing := pages.Render(wait(api.Progress{Stage: api.StagePulling, Failing: "its image cannot be pulled"}, 0), "")
	for _, text := range []string{" data-failing>", "web cannot start", "its image cannot be pulled"} {
		if !strings.Contains(string(failing.Body), text) {
			t.Errorf("the page of an app that fails lacks %q", text)
		}
	}
}

// An app that must not wake has not failed, and the page does not say so.
func TestRenderPaused(t *testing.T) {
	pages := New(logr.Discard())
	asleep := wait(api.Progress{Failing: "its owner keeps it asleep", Reason: api.ReasonPaused}, 0)
	for accept, texts := range map[string][2][]string{
		"en": {
			{"web is asleep", "It does not wake at present:", "its owner keeps it asleep", "once it may wake"},
			{"cannot start", "keeps it from starting", "once it can start"},
		},
		"ko": {{"web 잠자는 중", "깨우지 않습니다", "its owner keeps it asleep"}, {"시작 불가", "문제"}},
	} {
		body := string(pages.Render(asleep, accept).Body)
		for i, has := range []bool{true, false} {
			for _, text := range texts[i] {
				if strings.Contains(body, text) != has {
					t.Errorf("%s: contains %q: %t, want %t", accept, text, !has, has)
				}
			}
		}
	}
}

// Names and reasons are shown as text wherever they appear.
func TestRenderEscapes(t *testing.T) {
	pages := New(logr.Discard())
	hostile := `</title></script><script>alert(1)</script>"'{{.Nonce}}`
	w := Wait{Namespace: hostile, App: hostile, Progress: api.Progress{Stage: hostile, Failing: hostile, Reason: hostile}}
	pages.SetTheme("other", "")
	for range 2 {
		doc := pages.Render(w, "en")
		if strings.Contains(string(doc.Body), "<script>") || strings.Contains(string(doc.Body), "alert(1)</script>") {
			t.Errorf("got %s", doc.Body)
		}
		// The same in a theme, which puts them into attributes and scripts.
		pages.SetTheme(hostile, `<p title="{{.App}}" data-x={{.App}}>{{.Why}}</p><script nonce="{{.Nonce}}">let x={{.App}}</script>{{.Live}}`)
	}
	var report Report
	if err := json.Unmarshal(pages.Report(w, "en"), &report); err != nil || report.Why != hostile {
		t.Errorf("got %+v, %v", report, err)
	}
}

// TestKindIsSaidOnce tests that a failure of which a visitor may know only the kind is told in the visitor's language alone.
func TestKindIsSaidOnce(t *testing.T) {
	w := wait(api.Progress{Reason: "ImagePullBackOff", Failing: api.FailureKind("ImagePullBackOff")}, 0)
	var got Report
	if err := json.Unmarshal(New(logr.Discard()).Report(w, "ko"), &got); err != nil || got.Why != "앱의 이미지를 내려받을 수 없습니다." {
		t.Errorf("got %q, %v", got.Why, err)
	}
}
