// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A go.mod is read even if none of its modules can be downloaded.
func TestRequirements(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"go.mod": `module a.test/m
go 1.26.0
require a.test/x v1.2.3
require (
	a.test/y/v2 v2.0.0 // indirect
)
replace a.test/z => ./z
`})
	got, err := requirements(t.Context(), filepath.Join(dir, "go.mod"))
	if want := map[string]string{"a.test/x": "v1.2.3", "a.test/y/v2": "v2.0.0"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v %v", got, err)
	}
	if _, err := requirements(t.Context(), filepath.Join(dir, "none", "go.mod")); err == nil {
		t.Error("no file, no error")
	}
}

func TestLegoOverlay(t *testing.T) {
	source, work := t.TempDir(), t.TempDir()
	writeFiles(t, source, map[string]string{
		"go.mod": "", "README.md": "", "lego/client.go": "", "lego/client_test.go": "", "providers/http/web/web.go": "",
		"providers/dns/all.go": "", "providers/dns/cloud/cloud.go": "",
	})
	overlay, lego := filepath.Join(work, "overlay.json"), filepath.Join(work, "lego")
	if err := writeLegoOverlay(overlay, lego, source, "/ours.go"); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(overlay)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Replace map[string]string }
	if err := json.Unmarshal(content, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{filepath.Join(lego, "providers/dns/providers.go"): "/ours.go"}
	for _, file := range []string{"go.mod", "lego/client.go", "providers/http/web/web.go"} {
		want[filepath.Join(lego, file)] = filepath.Join(source, file)
	}
	if !reflect.DeepEqual(got.Replace, want) {
		t.Errorf("got %v, want %v", got.Replace, want)
	}
}

// The replacements compile by themselves, and have the module paths of what they replace.
func TestTraefikStandIns(t *testing.T) {
	for folder, module := range map[string]string{
		"ext": "github.com/traefik/traefik/dynamic/ext", "httpauth": "github.com/abbot/go-http-auth",
	} {
		output, err := goCommand(t.Context(), filepath.Join("traefik", folder), "list", "-find", "-f", "{{.ImportPath}}", ".").Output()
		if err != nil || strings.TrimSpace(string(output)) != module {
			t.Errorf("%s is %q, %v; want %s", folder, output, err, module)
		}
		if output, err := goCommand(t.Context(), filepath.Join("traefik", folder), "vet", ".").CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", folder, err, output)
		}
	}
}

// No image but this program's own has this name.
func TestTraefikManifests(t *testing.T) {
	for _, want := range []string{
		"image: scale-to-zero.test/traefik:" + traefikVersion + "\n", "namespace: traefik", "kind: IngressClass", "kind: GatewayClass",
	} {
		if !strings.Contains(traefikManifests, want) {
			t.Errorf("there is no %q", want)
		}
	}
}
