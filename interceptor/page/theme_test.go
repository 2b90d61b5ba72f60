// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"os"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// logged returns a Pages, and the lines that it logs.
func logged(t *testing.T) (*Pages, *[]string) {
	t.Helper()
	var lines []string
	return New(funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{})), &lines
}

func TestThemes(t *testing.T) {
	const theme = `<html lang="{{.Lang}}"><title>{{.Title}}</title><style nonce="{{.Nonce}}">b{color:red}</style>{{.Live}}
		{{with .Why}}<b>{{.}}</b>{{else}}{{if and (eq .Stage "pulling") (not .Late) (gt .Usual 0)}}` +
		`{{.App}} in {{.Namespace}}: {{.Usual}} s{{end}}{{end}}`
	pages, log := logged(t)
	pages.SetTheme("shop", theme)
	render := func(w Wait) string { return string(pages.Render(w, "").Body) }
	w := wait(api.Progress{Stage: api.StagePulling, Starts: took(8e9).Starts}, 0)
	if got := render(w); !strings.Contains(got, "web in shop: 8 s") || !strings.Contains(got, "Scale-To-Zero-Wait") {
		t.Errorf("got %s", got)
	}
	if got := render(wait(api.Progress{Failing: "a & b"}, 0)); !strings.Contains(got, "<b>a &amp; b</b>") {
		t.Errorf("got %s", got)
	}
	w.Namespace = "other"
	if got := render(w); !strings.Contains(got, "<main>") {
		t.Errorf("another namespace has the theme: %s", got)
	}
	pages.SetTheme("shop", "")
	w.Namespace = "shop"
	if got := render(w); !strings.Contains(got, "<main>") {
		t.Errorf("the theme has not gone: %s", got)
	}
	pages.SetTheme("shop", builtin)
	if got := render(w); !strings.Contains(got, "<main>") || len(*log) > 0 {
		t.Errorf("what is built in is refused as a theme: %s", *log)
	}
}

// The example in the documentation is accepted.
func TestThemeOfTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/waiting-page.md")
	if err != nil {
		t.Fatal(err)
	}
	_, source, found := strings.Cut(string(text), "page.html: |\n")
	source, _, ends := strings.Cut(source, "</html>")
	pages, log := logged(t)
	pages.SetTheme("shop", source)
	if got := string(pages.Render(wait(took(8e9), 0), "").Body); !found || !ends || len(*log) > 0 || !strings.Contains(got, "sans-serif") {
		t.Errorf("refused as %s: %s", *log, source)
	}
}

// A theme is refused if it could take the interceptor's time or memory, or if visitors could not leave its page.
func TestThemesThatAreRefused(t *testing.T) {
	for name, tc := range map[string]struct{ source, reason string }{
		"a loop":               {`{{.Live}}{{range 1000000000}}x{{end}}`, "range"},
		"a loop within":        {`{{.Live}}{{if .Failing}}{{else}}{{with .Why}}{{range .}}x{{end}}{{end}}{{end}}`, "range"},
		"a definition":         {`{{define "a"}}{{template "a"}}{{end}}{{.Live}}`, "defines templates"},
		"a block":              {`{{.Live}}{{block "a" .}}{{end}}`, "defines templates"},
		"itself":               {`{{.Live}}{{template "page" .}}`, "not allowed"},
		"only definitions":     {`{{define "page"}}{{end}}`, ""},
		"printf":               {`{{.Live}}{{printf "%1000000000d" 1}}`, "calls printf"},
		"in parentheses":       {`{{.Live}}{{if eq (print .App) "a"}}{{end}}`, "calls print"},
		"behind a pipe":        {`{{.Live}}{{.App | js}}`, "calls js"},
		"in a declaration":     {`{{.Live}}{{$x := index .App 1}}`, "calls index"},
		"a field of a call":    {`{{.Live}}{{(index .App 1).X}}`, "calls index"},
		"too long":             {`{{.Live}}` + strings.Repeat("x", maxTheme), "allowed are 32768"},
		"too many parts":       {`{{.Live}}` + strings.Repeat(`{{.App}}`, 500), "more than 1000 parts"},
		"it makes too much":    {strings.Repeat(`{{.Live}}`, 300), "longer than"},
		"not a template":       {`{{.Live}}{{`, "unclosed action"},
		"no such field":        {`{{.Live}}{{.Secret}}`, "Secret"},
		"no such function":     {`{{.Live}}{{exec "ls"}}`, "exec"},
		"HTML that is unclear": {`{{.Live}}<a href="{{if .Late}}"{{end}}>`, "different context"},
		"nothing that opens":   {`<h1>{{.Title}}</h1>`, "lacks {{.Live}}"},
		"none when it fails":   {`{{if not .Failing}}{{.Live}}{{end}}`, "lacks {{.Live}}"},
		"in a comment":         {`<!-- {{.Live}} -->`, "lacks {{.Live}}"},
		"in an attribute":      {`<p title="{{.Live}}">`, "lacks {{.Live}}"},
	} {
		pages, log := logged(t)
		pages.SetTheme("shop", `{{.Live}} the one before`)
		pages.SetTheme("shop", tc.source)
		if len(*log) != 1 || !strings.Contains((*log)[0], tc.reason) || !strings.Contains((*log)[0], `"namespace"="shop"`) {
			t.Errorf("%s: logged %q", name, *log)
		}
		if got := string(pages.Render(wait(took(), 0), "").Body); !strings.Contains(got, "<main>") {
			t.Errorf("%s: the page is %.200s", name, got)
		}
	}
}

// If a theme fails with data that it was not tried with, the built-in page is used.
func TestThemeThatFailsLater(t *testing.T) {
	pages, log := logged(t)
	pages.SetTheme("shop", `{{.Live}}{{if eq .Stage "starting"}}{{eq .App 1}}{{end}}`)
	if len(*log) > 0 {
		t.Fatalf("it is refused: %s", *log)
	}
	if got := string(pages.Render(wait(api.Progress{Stage: api.StageStarting}, 0), "").Body); !strings.Contains(got, "<main>") {
		t.Errorf("the page is %.200s", got)
	}
}
