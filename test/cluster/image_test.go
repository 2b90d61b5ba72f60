// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestParseImageSpec(t *testing.T) {
	for name, tc := range map[string]struct {
		image, binary string
		want          imageSpec
		fails         bool
	}{
		"binary only":    {image: "a.test/x:1", binary: "/out/app", want: imageSpec{name: "a.test/x:1", binary: "/out/app", dest: "/app"}},
		"with a place":   {image: "x", binary: "./app:/bin/app", want: imageSpec{name: "x", binary: "./app", dest: "/bin/app"}},
		"relative place": {image: "x", binary: "app:bin/app", fails: true},
		"place above":    {image: "x", binary: "app:/../app", fails: true},
		"no file":        {image: "x", binary: "app:/", fails: true},
		"bad image name": {image: "UPPER", binary: "app", fails: true},
		"no image name":  {image: "", binary: "app", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseImageSpec(tc.image, tc.binary, nil)
			if (err != nil) != tc.fails || !tc.fails && !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v %v", got, err)
			}
		})
	}
}

// pauseBinary is a small static program to test with.
func pauseBinary(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "pause")
	cmd := goCommand(t.Context(), "pause", "build", "-trimpath", "-o", out, ".")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return out
}

func TestImage(t *testing.T) {
	binary := pauseBinary(t)
	out := filepath.Join(t.TempDir(), "image.tar")
	spec := imageSpec{name: "a.test/x:1", binary: binary, dest: "/usr/bin/app", args: []string{"serve", "--now"}}
	if err := writeImage(spec, out); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(spec.name)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(out, &tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config; got.User != "65532:65532" || strings.Join(got.Entrypoint, " ") != "/usr/bin/app serve --now" {
		t.Errorf("config %+v", got)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	files := listLayer(t, content)
	for file, want := range map[string]string{"tmp/": "1777", "etc/passwd": "644", "usr/": "755", "usr/bin/": "755", "usr/bin/app": "755"} {
		if files[file] != want {
			t.Errorf("%s has mode %q, want %s", file, files[file], want)
		}
	}
	if len(files) != 7 {
		t.Errorf("files: %v", files)
	}
}

func listLayer(t *testing.T, content io.Reader) map[string]string {
	t.Helper()
	files := map[string]string{}
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[header.Name]; twice {
			t.Errorf("%s is there twice", header.Name)
		}
		files[header.Name] = fmt.Sprintf("%o", header.Mode)
	}
}

func TestImageIsReproducible(t *testing.T) {
	binary, dir := pauseBinary(t), t.TempDir()
	var contents []string
	for _, file := range []string{"a.tar", "b.tar"} {
		if err := writeImage(imageSpec{name: "x:1", binary: binary, dest: "/x"}, filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, string(content))
	}
	if contents[0] != contents[1] {
		t.Error("the same binary gives different images")
	}
}

func TestImageRefusesWhatCannotRun(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell")
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ binary, want string }{
		"dynamic": {shell, "CGO_ENABLED=0"}, "script": {script, "not a program"}, "missing": {script + "x", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := writeImage(imageSpec{name: "x:1", binary: tc.binary, dest: "/x"}, filepath.Join(dir, "x.tar"))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
