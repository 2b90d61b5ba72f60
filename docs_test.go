// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// pages returns the Markdown files for readers, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			all[path] = string(text)
		}
	}
	if len(all) < 10 {
		t.Fatalf("found only %d pages", len(all))
	}
	return all
}

// anchors returns the anchors of a page's headings, as GitHub makes them.
func anchors(page string) []string {
	var out []string
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		anchor := strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")
		out = append(out, regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(anchor, ""))
	}
	return out
}

// brokenLinks returns the relative links of a page that lead nowhere.
func brokenLinks(path, page string, all map[string]string) []string {
	var broken []string
	for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(page, -1) {
		u, err := url.Parse(link[1])
		if err != nil || u.Scheme != "" {
			continue
		}
		target := path
		if u.Path != "" {
			target = filepath.Join(filepath.Dir(path), u.Path)
		}
		_, err = os.Stat(target)
		if err != nil || u.Fragment != "" && !slices.Contains(anchors(all[target]), u.Fragment) {
			broken = append(broken, link[1])
		}
	}
	return broken
}

func TestLinks(t *testing.T) {
	all := pages(t)
	for path, page := range all {
		if broken := brokenLinks(path, page, all); len(broken) > 0 {
			t.Errorf("%s: broken links: %v", path, broken)
		}
	}
	text := "## A heading's `code`, here\n[a](docs_test.go) [b](#a-headings-code-here) [c](https://example.com/x) [d](gone.md) [e](#gone)"
	if got := brokenLinks("README.md", text, map[string]string{"README.md": text}); !slices.Equal(got, []string{"gone.md", "#gone"}) {
		t.Errorf("found %v", got)
	}
}

// Paths in the code of the repository that a page names exist.
func TestNamedFiles(t *testing.T) {
	named := regexp.MustCompile("`((?:test|config|injector|interceptor|certs|webhook|docs|tools)/[\\w./-]+)`")
	found := 0
	for path, page := range pages(t) {
		for _, match := range named.FindAllStringSubmatch(page, -1) {
			found++
			if _, err := os.Stat(match[1]); err != nil && match[1] != "test/bench/report.html" { // make bench writes it
				t.Errorf("%s names %s: %v", path, match[1], err)
			}
		}
	}
	if found == 0 {
		t.Error("found none")
	}
}

// Targets of make that a page names exist.
func TestNamedTargets(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for path, page := range pages(t) {
		for _, match := range regexp.MustCompile("(?:`|^|    |[A-Z0-9]+=\\S+ )make ([a-z][a-z0-9-]*)").FindAllStringSubmatch(page, -1) {
			found++
			if !regexp.MustCompile(`(?m)^` + match[1] + `:`).Match(makefile) {
				t.Errorf("%s names make %s", path, match[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("found only %d", found)
	}
}

// rows returns the rows of the table whose first column has head, by the `code` in their first column.
func rows(page, head string) map[string][]string {
	out := map[string][]string{}
	in := false
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		switch {
		case !strings.HasPrefix(line, "|"):
			in = false
		case strings.TrimSpace(cells[0]) == head:
			in = true
		case in:
			if match := regexp.MustCompile("^ ?`([^`]+)`").FindStringSubmatch(cells[0]); match != nil {
				out[match[1]] = cells
			}
		}
	}
	return out
}

// The annotations that are documented are those that there are, with their defaults.
func TestDocumentedAnnotations(t *testing.T) {
	page := pages(t)["docs/annotations.md"]
	documented := rows(page, "annotation")
	_, err := injector.ParseSettings(map[string]string{injector.Prefix + "none-such": ""})
	_, list, _ := strings.Cut(fmt.Sprint(err), "there are ")
	known := strings.Split(list, ", ")
	for name := range documented {
		if !slices.Contains(known, name) {
			t.Errorf("there is no annotation %s", name)
		}
	}
	for _, name := range known {
		if documented[name] == nil {
			t.Errorf("annotation %s is not documented", name)
		}
	}
	d := injector.DefaultSettings()
	for name, want := range map[string]string{
		"cooldown": injector.Short(d.Cooldown), "hold-timeout": injector.Short(d.HoldTimeout),
		"target-pending-requests": fmt.Sprint(d.TargetPendingRequests), "min-replicas": fmt.Sprint(d.MinReplicas),
	} {
		if got := documented[injector.Prefix+name]; len(got) < 2 || strings.Trim(got[1], "` ") != want {
			t.Errorf("%s: documented as %v, want %s", name, got, want)
		}
	}
	for name, row := range rows(pages(t)["README.md"], "annotation") {
		if documented[name] == nil || len(row) < 2 || row[1] != documented[name][1] {
			t.Errorf("README has %v, docs/annotations.md %v", row, documented[name])
		}
	}
}

// The limits that are documented are flags and chart values with the same defaults.
func TestDocumentedLimits(t *testing.T) {
	var chart struct{ Interceptor map[string]any }
	text, err := os.ReadFile("config/chart/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &chart); err != nil {
		t.Fatal(err)
	}
	command, _, err := command().Find([]string{"interceptor"})
	if err != nil {
		t.Fatal(err)
	}
	documented := rows(pages(t)["docs/operations.md"], "value")
	if len(documented) < 8 {
		t.Errorf("found only %d", len(documented))
	}
	for name, row := range documented {
		flag := command.Flags().Lookup(strings.Trim(row[1], "`- "))
		if flag == nil {
			t.Errorf("there is no flag %s", row[1])
			continue
		}
		value, short := fmt.Sprint(chart.Interceptor[name]), func(s string) string { return strings.TrimSuffix(s, "0s") }
		if value != row[2] || short(flag.DefValue) != short(row[2]) {
			t.Errorf("%s is documented as %s, in the chart %s, and as a flag %s", name, row[2], value, flag.DefValue)
		}
	}
}
