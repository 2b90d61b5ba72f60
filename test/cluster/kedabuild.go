// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// KEDA has a client for every cloud, database and queue that it can scale by, and they are two thirds of what it
// compiles. We build it without them, from the sources of its release: the operator, the metrics adapter and the
// admission webhooks are unchanged, in one program instead of three. The build keeps the triggers below. It leaves out
// the other scalers, the secret stores of clouds, Azure Event Grid and metrics by OpenTelemetry; using one of them is an
// error. It uses the client-go, controller-runtime and metrics library of module kube, one minor version later than
// KEDA's own.
const kedaModule = "github.com/kedacore/keda/v2"

// kedaTriggers are the triggers that the build keeps, each with the file of package scalers that has it.
func kedaTriggers() map[string]string {
	return map[string]string{
		"cpu":                 "cpu_memory_scaler.go",
		"memory":              "cpu_memory_scaler.go",
		"cron":                "cron_scaler.go",
		"external":            "external_scaler.go",
		"external-push":       "external_scaler.go",
		"kubernetes-resource": "kubernetes_resource_scaler.go",
		"kubernetes-workload": "kubernetes_workload_scaler.go",
	}
}

// A kedaEdit is a change to one of KEDA's files. If it does not fit, the build fails.
type kedaEdit struct {
	file    string // or a folder to remove
	pattern string // empty: remove the file
	with    string
	ours    string // our file that replaces it, below test/cluster/keda
}

func kedaEdits() []kedaEdit {
	edits := []kedaEdit{
		{file: "pkg/scalers/leftout.go", ours: "scalers/leftout.go"},
		{file: "pkg/scalers/azure"},
		{file: "pkg/scalers/azure/leftout.go", ours: "azure/leftout.go"},
		{file: "pkg/scaling/resolver/aws_secretmanager_handler.go"},
		{file: "pkg/scaling/resolver/azure_keyvault_handler.go"},
		{file: "pkg/scaling/resolver/gcp_secretmanager_handler.go"},
		{file: "pkg/scaling/resolver/hashicorpvault_handler.go"},
		{file: "pkg/scaling/resolver/leftout.go", ours: "resolver/leftout.go"},
		{file: "pkg/metricscollector/opentelemetry.go"},
		{file: "pkg/metricscollector/leftout.go", ours: "metricscollector/leftout.go"},
		{file: "pkg/eventemitter/azure_event_grid_topic_handler.go"},
		{file: "pkg/eventemitter/leftout.go", ours: "eventemitter/leftout.go"},
	}
	for _, command := range []string{"operator", "adapter", "webhooks"} {
		edits = append(edits,
			kedaEdit{file: "cmd/" + command + "/main.go", pattern: `(?m)^package main$`, with: "package " + command},
			kedaEdit{file: "cmd/" + command + "/main.go", pattern: `(?m)^func main\(\) {$`, with: "func Main() {"})
	}
	return edits
}

// kedaSum is a checksum of everything but its release that KEDA is built from.
func (c *cluster) kedaSum() string {
	sum := sha256.Sum256(fmt.Append(nil, c.kubeSum, c.kedaFilesSum, kedaTriggers(), kedaEdits()))
	return hex.EncodeToString(sum[:4])
}

// kedaFlags returns the flags for `go build` in module kube, and writes KEDA's sources into the folder work.
func (c *cluster) kedaFlags(ctx context.Context, dir, work string) ([]string, error) {
	source, err := c.download(ctx, kedaModule, kedaVersion)
	if err != nil {
		return nil, err
	}
	sources := filepath.Join(work, "keda")
	if err := writeKEDA(source, sources, filepath.Join(c.checkout, "test", "cluster", "keda")); err != nil {
		return nil, err
	}
	goMod := filepath.Join(work, "go.mod")
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if _, err := writeFile(filepath.Join(work, name), content, 0o644); err != nil {
			return nil, err
		}
	}
	if output, err := goCommand(ctx, work, "mod", "edit", "-replace", kedaModule+"="+sources, goMod).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("replacing KEDA: %w: %s", err, lastLines(output, 5))
	}
	return []string{"-modfile", goMod}, nil
}

// writeKEDA writes KEDA's sources, with the replacements from the folder ours.
func writeKEDA(source, work, ours string) error {
	for _, name := range []string{"go.mod", "apis", "cmd", "controllers", "pkg", "version"} {
		if err := copySources(filepath.Join(source, name), filepath.Join(work, name)); err != nil {
			return fmt.Errorf("copying KEDA: %w", err)
		}
	}
	if err := dropScalers(work, kedaTriggers()); err != nil {
		return fmt.Errorf("leaving out scalers of KEDA: %w", err)
	}
	for _, e := range kedaEdits() {
		if err := e.apply(work, ours); err != nil {
			return fmt.Errorf("editing KEDA: %w", err)
		}
	}
	return nil
}

// copySources copies Go files except tests, and the files of a module.
func copySources(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch name := d.Name(); {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case strings.HasSuffix(name, "_test.go"), !slices.Contains([]string{".go", ".mod"}, filepath.Ext(name)):
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { // from may be a file
			return err
		}
		return os.WriteFile(target, content, 0o644)
	})
}

// apply makes the edit in the folder work, with the replacement from the folder ours.
func (e kedaEdit) apply(work, ours string) error {
	file := filepath.Join(work, e.file)
	if e.ours != "" {
		content, err := os.ReadFile(filepath.Join(ours, e.ours))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, content, 0o644)
	}
	if !exists(file) {
		return fmt.Errorf("there is no %s", e.file)
	}
	if e.pattern == "" {
		return os.RemoveAll(file)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pattern := regexp.MustCompile(e.pattern)
	if n := len(pattern.FindAllIndex(content, -1)); n != 1 {
		return fmt.Errorf("%s has %q %d times, not once", e.file, e.pattern, n)
	}
	return os.WriteFile(file, pattern.ReplaceAll(content, []byte(e.with)), 0o644)
}

// dropScalers removes all scalers but those of kedaTriggers.
func dropScalers(work string, keep map[string]string) error {
	scalers, err := filepath.Glob(filepath.Join(work, "pkg", "scalers", "*_scaler.go"))
	if err != nil {
		return err
	}
	files := map[string]bool{}
	for _, file := range keep {
		files[file] = true
	}
	for _, file := range scalers {
		if !files[filepath.Base(file)] {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	builder := filepath.Join(work, "pkg", "scaling", "scalers_builder.go")
	content, err := os.ReadFile(builder)
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	triggers := regexp.MustCompile(`(?:\t// TODO: .*\n)?\tcase "([a-z0-9-]+)":\n\t\treturn scalers\.New.*\n`)
	content = triggers.ReplaceAllFunc(content, func(text []byte) []byte {
		trigger := strings.Split(string(text), `"`)[1]
		if keep[trigger] == "" {
			return nil
		}
		kept[trigger] = true
		return text
	})
	for trigger := range keep {
		if !kept[trigger] {
			return fmt.Errorf("there is no trigger %s", trigger)
		}
	}
	return os.WriteFile(builder, content, 0o644)
}
