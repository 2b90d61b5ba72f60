// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Traefik does not build from the module proxy alone. The proxy lacks two modules with which Traefik replaces others, and
// libraries that only go-acme/lego's DNS providers need. The folders below test/cluster/traefik replace them, in a go.mod
// that is derived from Traefik's own; the sources in Go's module cache stay unchanged.
const (
	traefikModule    = "github.com/traefik/traefik/v3"
	legoModule       = "github.com/go-acme/lego/v5"
	legoProviders    = "providers/dns"
	gatewayAPIModule = "sigs.k8s.io/gateway-api"
)

func (c *cluster) traefikSources(elem ...string) string {
	return filepath.Join(append([]string{c.checkout, "test", "cluster", "traefik"}, elem...)...)
}

func (c *cluster) gatewayAPIManifests() string {
	return filepath.Join(filepath.Dir(c.binary("traefik")), "gateway-api.yaml")
}

// buildTraefik builds Traefik, which `up` does not need.
func (c *cluster) buildTraefik(ctx context.Context, report *progress) error {
	if err := c.build(ctx, report, "traefik"); err != nil {
		return err
	}
	if err := c.writeImages(traefikImage()); err != nil || exists(c.gatewayAPIManifests()) {
		return err
	}
	return c.renderGatewayAPI(ctx)
}

// renderGatewayAPI stores the standard channel's definitions, of the version that Traefik is built with.
func (c *cluster) renderGatewayAPI(ctx context.Context) error {
	dir, err := c.download(ctx, traefikModule, traefikVersion)
	if err != nil {
		return err
	}
	required, err := requirements(ctx, filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	if dir, err = c.download(ctx, gatewayAPIModule, required[gatewayAPIModule]); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "config", "crd", "standard", "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("rendering Gateway API's definitions: %s has none: %w", dir, err)
	}
	var manifests bytes.Buffer
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("rendering Gateway API's definitions: %w", err)
		}
		fmt.Fprintf(&manifests, "---\n%s\n", content)
	}
	_, err = writeFile(c.gatewayAPIManifests(), manifests.Bytes(), 0o644)
	return err
}

// requirements reads the versions that a go.mod requires. It does not load the module graph, parts of which are missing.
func requirements(ctx context.Context, goMod string) (map[string]string, error) {
	output, err := goCommand(ctx, filepath.Dir(goMod), "mod", "edit", "-json", goMod).Output()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", goMod, err)
	}
	var file struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(output, &file); err != nil {
		return nil, fmt.Errorf("reading %s: %w", goMod, err)
	}
	versions := map[string]string{}
	for _, r := range file.Require {
		versions[r.Path] = r.Version
	}
	return versions, nil
}

// traefikFlags returns the flags for `go build`, and prepares the files that they name in the folder work.
func (c *cluster) traefikFlags(ctx context.Context, dir, work string) ([]string, error) {
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if _, err := writeFile(filepath.Join(work, name), content, 0o644); err != nil {
			return nil, err
		}
	}
	goMod, lego, overlay := filepath.Join(work, "go.mod"), filepath.Join(work, "lego"), filepath.Join(work, "overlay.json")
	required, err := requirements(ctx, goMod)
	if err != nil {
		return nil, err
	}
	source, err := c.download(ctx, legoModule, required[legoModule])
	if err != nil {
		return nil, err
	}
	if err := writeLegoOverlay(overlay, lego, source, c.traefikSources("lego", "providers.go")); err != nil {
		return nil, fmt.Errorf("laying out %s: %w", legoModule, err)
	}
	cmd := goCommand(ctx, work, "mod", "edit",
		"-replace", "github.com/abbot/go-http-auth="+c.traefikSources("httpauth"),
		"-replace", "github.com/traefik/traefik/dynamic/ext="+c.traefikSources("ext"),
		"-replace", legoModule+"="+lego, goMod)
	if output, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("replacing modules: %w: %s", err, lastLines(output, 5))
	}
	return []string{"-modfile", goMod, "-overlay", overlay}, nil
}

// writeLegoOverlay writes an overlay in which the empty folder lego has all source files of go-acme/lego except its DNS
// providers, which ours replace. The reverse fails: Go allows no overlay over its module cache.
func writeLegoOverlay(overlay, lego, source, providers string) error {
	replace := map[string]string{filepath.Join(lego, filepath.FromSlash(legoProviders), "providers.go"): providers}
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		if d.IsDir() && filepath.ToSlash(relative) == legoProviders {
			return fs.SkipDir
		}
		if relative == "go.mod" || strings.HasSuffix(relative, ".go") && !strings.HasSuffix(relative, "_test.go") {
			replace[filepath.Join(lego, relative)] = path
		}
		return nil
	})
	if err != nil {
		return err
	}
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(lego, 0o755); err != nil {
		return err
	}
	_, err = writeFile(overlay, content, 0o644)
	return err
}
