// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const release = "scale-to-zero" // of the chart, and its namespace

// TestRights: each right that the chart grants is used, and nothing else is asked for.
func TestRights(t *testing.T) {
	path := os.Getenv("SCALE_TO_ZERO_AUDIT_LOG")
	if path == "" {
		t.Skip("SCALE_TO_ZERO_AUDIT_LOG is not set: the cluster has no audit log")
	}
	log, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	made, refused, err := read(log, release)
	if err != nil {
		t.Fatal(err)
	}
	rights, err := granted(manifests(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rights; %d different requests, and %d that were refused", len(rights), len(made), len(refused))
	for _, problem := range append(compare(rights, made, unused()), explain(rights, refused, expected())...) {
		t.Error(problem)
	}
}

// manifests are those of the chart with the values of the release, and with each that the tests change in between.
func manifests(t *testing.T) string {
	t.Helper()
	helm := func(args ...string) string {
		var stderr bytes.Buffer
		c := exec.CommandContext(t.Context(), os.Getenv("HELM"), args...)
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil {
			t.Fatalf("helm %s: %v: %s", strings.Join(args, " "), err, stderr.String())
		}
		return string(out)
	}
	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte(helm("get", "values", release, "-n", release, "-o", "yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	all := helm("get", "manifest", release, "-n", release)
	for _, change := range []string{"certs.mode=cert-manager"} {
		all += "\n---\n" + helm("template", release, os.Getenv("E2E_CHART"), "-n", release, "--dry-run=server", "-f", values, "--set", change)
	}
	return all
}

// compare returns what is wrong with the rights: some are not used and not excused, or are excused and not granted.
func compare(rights []right, made map[request]int, excuses []excuse) []string {
	var problems []string
	needed := map[excuse]bool{}
	for _, r := range rights {
		excused := false
		for _, e := range excuses {
			if e.covers(r) {
				excused, needed[e] = true, true
			}
		}
		if !excused && !slices.ContainsFunc(slices.Collect(maps.Keys(made)), r.allows) {
			problems = append(problems, fmt.Sprintf("%s: granted, but not used. Remove the right, or list why the tests do not use it", r))
		}
	}
	for _, e := range excuses {
		if !needed[e] {
			problems = append(problems, fmt.Sprintf("%+v: excused, but not granted", e))
		}
	}
	return problems
}

// explain returns the refusals that are not expected. While the chart is installed and uninstalled, a granted request is refused for a
// moment, because roles come after those who need them, and go before them.
func explain(rights []right, refused map[refusal]int, expectations []expectation) []string {
	var problems []string
	for f, n := range refused {
		allows := func(r right) bool { return r.allows(f.request) }
		covers := func(e expectation) bool { return e.covers(f) }
		if f.byRoles && slices.ContainsFunc(rights, allows) || slices.ContainsFunc(expectations, covers) {
			continue
		}
		problems = append(problems, fmt.Sprintf("%s: refused %d times: %s", f.request, n, f.message))
	}
	slices.Sort(problems)
	return problems
}
