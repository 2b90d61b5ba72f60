// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A program is a command that is built from source. A program of another project is built in the unpacked folder of its
// own module, so that the replacements in its go.mod and the checksums in its go.sum apply; `go install M@V` refuses such
// modules.
type program struct {
	name    string
	title   string
	module  string // empty: ours
	folder  string // of our module, below test/cluster
	version string
	sum     string // checksum of our sources that it is built from
	pkg     string // in the module
	ldflags string
	flags   func(ctx context.Context, dir, work string) ([]string, error) // more flags for `go build`, if it needs any
}

// together tells whether one run of `go build` makes both programs. They then share compiled packages, and linking one,
// which uses a single processor, overlaps with compiling the other.
func (p program) together(q program) bool {
	return p.module == q.module && p.folder == q.folder && (p.module == "" || p.version == q.version)
}

// output is the file name that `go build` gives it.
func (p program) output() string {
	if p.pkg == "." {
		return p.folder
	}
	return path.Base(p.pkg)
}

// dir is the folder of the built program. Its name contains every version that the program depends on, so a different
// build never overwrites it.
func (p program) dir() string {
	base, _, _ := strings.Cut(p.title, " ")
	name := strings.ToLower(base) + "-" + p.version
	if p.sum != "" {
		name += "-" + p.sum
	}
	return name
}

func (c *cluster) programs() map[string]program {
	helm := func(name, major, version string) program {
		module := "helm.sh/helm/v" + major
		return program{name: name, title: "Helm", version: version, ldflags: "-X " + module + "/internal/version.version=" + version}
	}
	inKube := func(p program, pkg string) program {
		p.folder, p.sum, p.pkg = "kube", c.kubeSum, pkg
		return p
	}
	keda := inKube(program{
		name: "keda", title: "KEDA", version: kedaVersion, ldflags: "-X " + kedaModule + "/version.Version=" + kedaVersion,
	}, "./keda")
	keda.sum, keda.flags = c.kedaSum(), c.kedaFlags
	helm3 := helm("helm3", "3", helm3Version)
	helm3.module, helm3.pkg = "helm.sh/helm/v3", "./cmd/helm"
	for _, pkg := range []string{"/pkg/chartutil", "/pkg/lint/rules"} { // otherwise it assumes Kubernetes 1.20
		helm3.ldflags += " -X " + helm3.module + pkg + ".k8sVersionMajor=1 -X " + helm3.module + pkg + ".k8sVersionMinor=" + kubernetesMinor
	}
	all := map[string]program{}
	for _, p := range []program{
		inKube(program{name: "hyperkube", title: "Kubernetes", version: kubernetesVersion, ldflags: kubernetesLDFlags()}, "."),
		inKube(program{name: "coredns", title: "CoreDNS", version: corednsVersion}, "./coredns"),
		inKube(helm("helm", "4", helmVersion), "./helm"),
		inKube(program{name: "metrics-server", title: "metrics-server", version: metricsServerVersion}, "./metricsserver"),
		keda, helm3,
		{name: "pause", title: "pause", version: c.pauseSum, folder: "pause", pkg: "."},
		{name: "cert-manager", title: "cert-manager", version: certManagerVersion + "-" + c.certManagerSum, folder: "certmanager", pkg: "."},
		{name: netpolName, title: "netpol", version: netpolVersion + "-" + c.netpolSum, folder: "netpol", pkg: "."},
		{name: kwokName, title: "kwok", module: kwokModule, version: kwokVersion, pkg: "./cmd/kwok"},
		{
			name: "traefik", title: "Traefik", module: traefikModule, version: traefikVersion, sum: c.traefikSum, pkg: "./cmd/traefik",
			ldflags: "-X " + traefikModule + "/pkg/version.Version=" + strings.TrimPrefix(traefikVersion, "v"), flags: c.traefikFlags,
		},
	} {
		all[p.name] = p
	}
	return all
}

func kubernetesLDFlags() string {
	var flags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, v := range []string{
			"gitVersion=" + kubernetesVersion, "gitMajor=1", "gitMinor=" + kubernetesMinor,
			"gitTreeState=clean", "gitCommit=0000000", "buildDate=2026-01-01T00:00:00Z",
		} {
			flags = append(flags, "-X "+pkg+"."+v)
		}
	}
	return strings.Join(flags, " ")
}

// sumFiles returns a short checksum of the folder and everything below it.
func sumFiles(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		fmt.Fprintf(sum, "%s %d\n%s", name, len(content), content)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)[:4]), err
}

func (c *cluster) binary(name string) string { return c.cached("bin", c.programs()[name].dir(), name) }
func (c *cluster) hyperkube() string         { return c.binary("hyperkube") }
func (c *cluster) kedaManifests() string {
	return filepath.Join(filepath.Dir(c.binary("keda")), "keda.yaml")
}

func (c *cluster) metricsServerManifests() string {
	return filepath.Join(filepath.Dir(c.binary("metrics-server")), "metrics-server.yaml")
}

func (c *cluster) imageFile(image bundledImage) string {
	return filepath.Join(filepath.Dir(c.binary(image.binary)), path.Base(image.dest)+".tar")
}

// build builds those of the named programs that are missing.
func (c *cluster) build(ctx context.Context, report *progress, names ...string) error {
	if len(c.missing(names)) == 0 {
		return nil
	}
	if _, err := exec.LookPath("go"); err != nil {
		return errors.New("go is not in PATH: install Go and put its bin folder there")
	}
	release, err := lock(ctx, c.cached("bin.lock"), "the programs in "+c.cached("bin"))
	if err != nil {
		return err
	}
	defer release()
	missing := c.missing(names) // another process may have built some while we waited
	for len(missing) > 0 {
		var batch, rest []program
		var titles []string
		for _, p := range missing {
			if p.together(missing[0]) {
				batch, titles = append(batch, p), append(titles, p.title+" "+p.version)
			} else {
				rest = append(rest, p)
			}
		}
		what := "building " + strings.Join(titles, ", ")
		if err := report.long(what, func() error { return c.compile(ctx, batch) }); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		missing = rest
	}
	return nil
}

func (c *cluster) missing(names []string) []program {
	var missing []program
	for _, name := range names {
		if !exists(c.binary(name)) {
			missing = append(missing, c.programs()[name])
		}
	}
	return missing
}

// compile builds programs of one module in a temporary folder, so that a program under its final name is always complete.
func (c *cluster) compile(ctx context.Context, programs []program) error {
	dir := filepath.Join(c.checkout, "test", "cluster", programs[0].folder)
	if module := programs[0].module; module != "" {
		unpacked, err := c.download(ctx, module, programs[0].version)
		if err != nil {
			return err
		}
		dir = unpacked
	}
	work, err := os.MkdirTemp("", "cluster-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	unfinished := c.cached("bin", ".unfinished")
	if err := errors.Join(os.RemoveAll(unfinished), os.MkdirAll(unfinished, 0o755)); err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	args, ldflags, pkgs := []string{"build", "-trimpath", "-o", unfinished + "/"}, "-s -w", []string(nil)
	for _, p := range programs {
		ldflags, pkgs = strings.TrimSpace(ldflags+" "+p.ldflags), append(pkgs, p.pkg)
		if p.flags != nil {
			flags, err := p.flags(ctx, dir, work)
			if err != nil {
				return err
			}
			args = append(args, flags...)
		}
	}
	cmd := goCommand(ctx, dir, slices.Concat(args, []string{"-ldflags", ldflags}, pkgs)...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w:\n%s", err, lastLines(output, 15))
	}
	for _, p := range programs {
		if err := os.MkdirAll(filepath.Dir(c.binary(p.name)), 0o755); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(unfinished, p.output()), c.binary(p.name)); err != nil {
			return err
		}
	}
	return nil
}

// download unpacks a module into Go's module cache and returns the folder.
func (c *cluster) download(ctx context.Context, module, version string) (string, error) {
	empty, err := os.MkdirTemp("", "cluster-*") // in a module, the download would change its go.sum
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(empty)
	cmd := goCommand(ctx, empty, "mod", "download", "-json", module+"@"+version)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	var result struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(output, &result); jsonErr == nil && result.Error != "" {
		return "", fmt.Errorf("downloading %s: %s", module, result.Error)
	}
	if err != nil {
		return "", fmt.Errorf("downloading %s: %w: %s", module, err, lastLines(stderr.Bytes(), 5))
	}
	return result.Dir, nil
}

// goCommand drops environment settings that are meant for other builds. Those that say where modules come from stay.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PWD="+dir, "GO111MODULE=on", "GOWORK=off", "GOFLAGS=-mod=readonly -buildvcs=false",
		"CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func lastLines(output []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// buildAssets builds what assets points to; it needs no privileges and no packages.
func (c *cluster) buildAssets(ctx context.Context, report *progress) error {
	return c.build(ctx, report, "hyperkube", "helm", "helm3")
}

// buildCluster builds everything that `up` needs.
func (c *cluster) buildCluster(ctx context.Context, report *progress, withAddOns bool) error {
	names := []string{"hyperkube", "coredns", "helm", "pause"}
	if withAddOns {
		names = append(names, "metrics-server", "keda")
	}
	if err := c.build(ctx, report, names...); err != nil {
		return err
	}
	if err := c.writeImages(nodeImages(withAddOns)...); err != nil || !withAddOns {
		return err
	}
	if err := c.render(ctx, c.metricsServerManifests(), metricsServerModule, metricsServerVersion, "manifests", "base"); err != nil {
		return err
	}
	return c.render(ctx, c.kedaManifests(), kedaModule, kedaVersion, "config", "default")
}

// writeImages writes the images that are missing, from programs that are built.
func (c *cluster) writeImages(images ...bundledImage) error {
	for _, image := range images {
		if file := c.imageFile(image); !exists(file) {
			if err := writeImage(imageSpec{name: image.name, binary: c.binary(image.binary), dest: image.dest}, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// render stores the manifests that a folder of a module describes, so that `up` does not depend on Go's module cache.
func (c *cluster) render(ctx context.Context, file, module, version string, folder ...string) error {
	if exists(file) {
		return nil
	}
	dir, err := c.download(ctx, module, version)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.hyperkube(), "kustomize", filepath.Join(append([]string{dir}, folder...)...))
	cmd.Args[0] = "kubectl"
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	manifests, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("rendering the manifests of %s: %w: %s", module, err, lastLines(stderr.Bytes(), 5))
	}
	_, err = writeFile(file, manifests, 0o644)
	return err
}

// assets returns the folder that envtest expects: a control plane for tests that need no node, and its clients.
func (c *cluster) assets() (string, error) {
	dir := filepath.Join(filepath.Dir(c.hyperkube()), "assets")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for name, program := range map[string]string{
		"etcd": "hyperkube", "kube-apiserver": "hyperkube", "kubectl": "hyperkube", "helm": "helm", "helm3": "helm3",
	} {
		target, err := filepath.Rel(dir, c.binary(program))
		if err != nil {
			return "", err
		}
		if err := link(target, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// link makes name a link to target. It replaces a link to another target, such as a client of another version.
func link(target, name string) error {
	if have, err := os.Readlink(name); err == nil && have == target {
		return nil
	}
	unfinished := fmt.Sprintf("%s.%d", name, os.Getpid())
	if err := os.Symlink(target, unfinished); err != nil {
		return err
	}
	return os.Rename(unfinished, name)
}
