// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"sync"

	"github.com/go-logr/logr"
)

var (
	//go:embed page.html
	builtin string
	//go:embed live.html
	live string
)

// Report is what the page shows about a start, in the visitor's language.
type Report struct {
	// State is Wait.State.
	State string `json:"state"`
	Ready bool   `json:"ready"`
	// Stage is one of api's Stage constants, or empty.
	Stage   string `json:"stage"`
	Failing bool   `json:"failing"`
	Late    bool   `json:"late"`
	// Title names the app. Status is the stage, and Why the reason of a failure. Estimate tells how long earlier starts took. Hint says
	// what the page does. Why and Estimate may be empty.
	Title    string `json:"title"`
	Status   string `json:"status"`
	Why      string `json:"why"`
	Estimate string `json:"estimate"`
	Hint     string `json:"hint"`
}

// View is the data of a template.
type View struct {
	Report

	App, Namespace string
	// Lang is the language of the texts: en or ko.
	Lang string
	// Reason is Kubernetes' one-word reason for Why.
	Reason string
	// Waiting is the text before a clock that shows the time so far.
	Waiting string
	// Usual and Elapsed are in seconds. Usual is 0 if it is not known.
	Usual, Elapsed int
	// Nonce has to be the nonce of style and script elements; otherwise browsers ignore these.
	Nonce string
	// Live keeps the page up to date and opens the app. Each template needs it.
	Live template.HTML
}

// Document is a page.
type Document struct {
	Body []byte
	// Policy is the page's Content-Security-Policy.
	Policy string
	// Lang is the page's language.
	Lang string
}

// Pages makes pages.
type Pages struct {
	languages     languages
	builtin, live *template.Template
	log           logr.Logger

	mu     sync.RWMutex // protects themes
	themes map[string]*template.Template
}

// New returns Pages without themes.
func New(log logr.Logger) *Pages {
	return &Pages{
		languages: newLanguages(), log: log, themes: map[string]*template.Template{},
		builtin: template.Must(template.New("page").Parse(builtin)),
		live:    template.Must(template.New("live").Parse(live)),
	}
}

// Report returns the answer to a page's poll, as JSON.
func (p *Pages) Report(w Wait, acceptLanguage string) []byte {
	b, err := json.Marshal(report(&w, p.languages.of(acceptLanguage)))
	if err != nil {
		panic("page: a report cannot be written as JSON: " + err.Error()) // it consists of strings and bools
	}
	return b
}

func report(w *Wait, t *texts) Report {
	return Report{
		State: w.State(), Ready: w.Ready, Stage: w.Progress.Stage, Failing: w.Failing(), Late: w.Late(),
		Title: t.title(w), Status: t.status(w), Why: t.why(w), Estimate: t.estimate(w), Hint: t.hint(w),
	}
}

// Render returns the page, in the theme of the app's namespace if there is one.
func (p *Pages) Render(w Wait, acceptLanguage string) Document {
	v := p.view(&w, p.languages.of(acceptLanguage))
	p.mu.RLock()
	theme := p.themes[w.Namespace]
	p.mu.RUnlock()
	body, err := execute(theme, v)
	if err != nil && !errors.Is(err, errNoTheme) {
		p.log.V(1).Info("Making a waiting page from a theme failed", "namespace", w.Namespace, "error", err.Error())
	}
	if err != nil {
		body, err = execute(p.builtin, v)
	}
	if err != nil {
		panic("page: the built-in template fails: " + err.Error()) // it works for any data
	}
	return Document{Body: body, Policy: policy(v.Nonce), Lang: v.Lang}
}

func (p *Pages) view(w *Wait, t *texts) *View {
	v := &View{
		Report: report(w, t), App: w.App, Namespace: w.Namespace, Lang: t.lang, Reason: w.Progress.Reason, Waiting: t.waiting,
		Usual: int(w.Usual().Seconds()), Elapsed: int(w.Elapsed.Seconds()), Nonce: rand.Text(),
	}
	var b bytes.Buffer
	if err := p.live.Execute(&b, v); err != nil {
		panic("page: the script fails: " + err.Error()) // the script is ours, and a test runs it
	}
	v.Live = template.HTML(bytes.TrimSpace(b.Bytes())) //nolint:gosec // html/template has made it
	return v
}

// policy allows a page its own style and script, images that it contains, and requests to its own server, and nothing else.
func policy(nonce string) string {
	return "default-src 'none'; script-src 'nonce-" + nonce + "'; style-src 'nonce-" + nonce + "'; img-src data:; font-src data:; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'"
}

// maxPage bounds the page that a template makes.
const maxPage = 256 << 10

var (
	errNoTheme = errors.New("there is no theme")
	errTooLong = fmt.Errorf("the page is longer than %d bytes", maxPage)
)

func execute(t *template.Template, v *View) ([]byte, error) {
	if t == nil {
		return nil, errNoTheme
	}
	var b bounded
	if err := t.Execute(&b, v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// bounded is a buffer of at most maxPage bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxPage {
		return 0, errTooLong
	}
	return b.Buffer.Write(p)
}
