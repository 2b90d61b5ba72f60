// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLoader(t *testing.T) {
	for _, tc := range []struct{ kubeContext, given, want string }{
		{"kind-kind", "", "kind load image-archive {} --name kind"},
		{"kind-two-words", "", "kind load image-archive {} --name two-words"},
		{"k3d-a", "", "k3d image import {} --cluster a"},
		{"minikube", "", "minikube --profile minikube image load {}"},
		{"microk8s", "", "microk8s ctr image import {}"},
		{"docker-desktop", "", "docker load --input {}"},
		{"default", "sudo k3s ctr images import {}", "sudo k3s ctr images import {}"},
		{"kind-kind", "./give.sh", "./give.sh {}"},
		{"arn:aws:eks:eu-central-1:1:cluster/production", "", ""},
		{"kind", "", ""},
		{"default", "", ""},
	} {
		got, err := loader(tc.kubeContext, tc.given)
		if strings.Join(got, " ") != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%s, %q: got %q, %v", tc.kubeContext, tc.given, got, err)
		}
	}
}

// fakeKubectl answers with the content of the file that is named after its first words other than flags. It records its
// arguments.
func fakeKubectl(t *testing.T, answers map[string]string) (calls func() []string) {
	t.Helper()
	dir := t.TempDir()
	for name, answer := range answers {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(answer), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := `#!/bin/sh
cd "$(dirname "$0")"
shift 2 # --context NAME
echo "$*" >>calls
if [ -e "$1 $2 $3" ]; then cat "$1 $2 $3"; elif [ -e "$1 $2" ]; then cat "$1 $2"; fi
`
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		content, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(content)), "\n")
	}
}

// The demo changes nothing that it has not created.
func TestClaim(t *testing.T) {
	theirs := `{"metadata": {"name": "scale-to-zero", "labels": {"team": "a"}}}`
	made := `{"metadata": {"name": "scale-to-zero", "labels": {"scale-to-zero-demo": "true"}}}`
	for name, tc := range map[string]struct {
		answers map[string]string
		refuses string
		creates []string
	}{
		"nothing is there": {creates: []string{ourNamespace, appNamespace}},
		"what an interrupted demo has left": {answers: map[string]string{
			"get namespace " + ourNamespace: made, "get mutatingwebhookconfigurations": ourNamespace,
		}, creates: []string{appNamespace}},
		"somebody's namespace": {answers: map[string]string{"get namespace " + ourNamespace: theirs}, refuses: "not the demo's"},
		"somebody's app": {
			answers: map[string]string{"get namespace " + ourNamespace: made, "get namespace " + appNamespace: theirs},
			refuses: "not the demo's",
		},
		"installed elsewhere": {answers: map[string]string{"get mutatingwebhookconfigurations": "platform"}, refuses: "in namespace platform"},
	} {
		t.Run(name, func(t *testing.T) {
			calls := fakeKubectl(t, tc.answers)
			err := cluster{context: "kind-kind"}.claim(t.Context())
			if (err != nil) != (tc.refuses != "") || (err != nil && !strings.Contains(err.Error(), tc.refuses)) {
				t.Errorf("got %v, want %q", err, tc.refuses)
			}
			var created []string
			for _, call := range calls() {
				if namespace, ok := strings.CutPrefix(call, "create namespace "); ok {
					created = append(created, namespace)
				}
			}
			if !slices.Equal(created, tc.creates) {
				t.Errorf("created %v, want %v", created, tc.creates)
			}
		})
	}
}

func TestArchitecture(t *testing.T) {
	node := func(arch string) string { return `{"status": {"nodeInfo": {"architecture": "` + arch + `"}}}` }
	for nodes, want := range map[string]string{
		node("arm64"): "arm64", node("amd64") + "," + node("amd64"): "amd64", node("amd64") + "," + node("arm64"): "", "": "",
	} {
		fakeKubectl(t, map[string]string{"get nodes": `{"items": [` + nodes + `]}`})
		got, err := cluster{context: "kind-kind"}.architecture(t.Context())
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: got %q, %v", nodes, got, err)
		}
	}
}

// The archive has what its manifest names, under its digest.
func TestWriteImage(t *testing.T) {
	dir := t.TempDir()
	binary, file := filepath.Join(dir, "app"), filepath.Join(dir, "app.tar")
	if err := os.WriteFile(binary, []byte("program"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeImage(file, "a.test/app:1", "arm64", binary); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, archive)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("%v, %v", manifest, err)
	}
	m := manifest[0]
	var config struct {
		Architecture string
		Config       struct {
			User       string
			Entrypoint []string
		}
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(files[m.Config], &config); err != nil {
		t.Fatal(err)
	}
	layer := files[m.Layers[0]]
	if m.RepoTags[0] != "a.test/app:1" || m.Config != digest(files[m.Config])+".json" || config.Architecture != "arm64" ||
		config.Config.User != "65532:65532" || config.Config.Entrypoint[0] != "/app" || config.Rootfs.DiffIDs[0] != "sha256:"+digest(layer) {
		t.Errorf("%+v, %+v", m, config)
	}
	if content := untar(t, layer)["app"]; string(content) != "program" {
		t.Errorf("the layer has %q", content)
	}
}

func untar(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
