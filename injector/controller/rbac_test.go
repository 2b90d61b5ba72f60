// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// rights returns rights as "group/resource verb", sorted and without duplicates.
func rights(groups, resources, verbs []string) []string {
	var out []string
	for _, g := range groups {
		for _, r := range resources {
			for _, v := range verbs {
				out = append(out, strings.TrimPrefix(g+"/"+r+" "+v, "/"))
			}
		}
	}
	return out
}

func sorted(rights []string) []string {
	slices.Sort(rights)
	return slices.Compact(rights)
}

// marked returns the rights that the markers in the Go files of these folders ask for.
func marked(t *testing.T, folders ...string) []string {
	t.Helper()
	marker := regexp.MustCompile(`(?m)^// \+kubebuilder:rbac:groups=([^,]*),resources=([^,]*),verbs=(\S*)$`)
	var out []string
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found := marker.FindAllStringSubmatch(string(text), -1)
			if n := strings.Count(string(text), "\n// +kubebuilder"); n != len(found) {
				t.Errorf("%s has %d markers, of which %d can be read", path, n, len(found))
			}
			for _, m := range found {
				out = append(out, rights(strings.Split(strings.ReplaceAll(m[1], `""`, ""), ";"), strings.Split(m[2], ";"), strings.Split(m[3], ";"))...)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return sorted(out)
}

// granted returns the rights of the ClusterRole in a template of the chart. It omits those whose kinds come from the values, and
// those of the groups in without.
func granted(t *testing.T, template string, without ...string) []string {
	t.Helper()
	text, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	role, _, _ := strings.Cut(string(text), "\n---\n")
	role = regexp.MustCompile(`(?s)  \{\{- range .*?\{\{- end \}\}\n`).ReplaceAllString(role, "")
	role = regexp.MustCompile(`(?m)^.*\{\{.*\}\}.*$`).ReplaceAllString(role, "")
	var rules rbacv1.ClusterRole
	if err := yaml.Unmarshal([]byte(role), &rules); err != nil {
		t.Fatalf("%v in\n%s", err, role)
	}
	var out []string
	for _, r := range rules.Rules {
		if !slices.ContainsFunc(r.APIGroups, func(group string) bool { return slices.Contains(without, group) }) {
			out = append(out, rights(r.APIGroups, r.Resources, r.Verbs)...)
		}
	}
	return sorted(out)
}

// TestRights tests that the controllers' ClusterRole in the chart grants exactly what the markers in the code ask for. The rights for
// the webhook's configuration and certificate belong to package certs.
func TestRights(t *testing.T) {
	want := marked(t, "..", "../../webhook")
	got := granted(t, "../../config/chart/templates/rbac-controller.yaml", "cert-manager.io")
	got = slices.DeleteFunc(got, func(right string) bool {
		certs, ok := strings.CutPrefix(right, "admissionregistration.k8s.io/mutatingwebhookconfigurations ")
		return ok && certs != "list" && certs != "watch"
	})
	if len(want) < 30 {
		t.Fatalf("only %d rights are marked: %v", len(want), want)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the chart's ClusterRole (-marked +granted):\n%s", d)
	}
}

// TestInterceptorRights is TestRights for the interceptors.
func TestInterceptorRights(t *testing.T) {
	want := marked(t, "../../interceptor")
	got := granted(t, "../../config/chart/templates/rbac-interceptor.yaml")
	if len(want) < 6 {
		t.Fatalf("only %d rights are marked: %v", len(want), want)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the chart's ClusterRole (-marked +granted):\n%s", d)
	}
}
