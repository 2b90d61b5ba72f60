// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const (
	imageRepository    = "scale-to-zero.test/scale-to-zero"
	appImageRepository = "scale-to-zero.test/app"
)

// preparation is everything before the story: a cluster, scale-to-zero, and an app.
type preparation struct {
	narrator      *narrator
	context, load string // of the viewer's own cluster, if the demo uses one

	cluster     cluster
	tag, appTag string // of the images
}

func (p *preparation) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	compiled := make(chan error, 1)
	boot := p.boot
	if p.context != "" {
		boot = p.takeOwn
	} else {
		// Compile while the cluster boots: booting mostly waits.
		go func() { compiled <- p.compile(ctx, runtime.GOARCH) }()
	}
	if err := boot(ctx); err != nil {
		return err
	}
	if p.context != "" {
		go func() { compiled <- p.compile(ctx, p.cluster.arch) }()
	}
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return p.images(ctx, compiled) }, p.scaleToZero, p.app,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *preparation) takeOwn(ctx context.Context) (err error) {
	p.narrator.heading("Your Kubernetes cluster")
	p.cluster, err = ownCluster(ctx, p.narrator, p.context, p.load)
	return err
}

func (p *preparation) boot(ctx context.Context) error {
	p.narrator.heading("A Kubernetes cluster with KEDA")
	p.cluster = cluster{load: []string{clusterProgram, "load", "{}"}, arch: runtime.GOARCH, keda: true}
	done := p.narrator.progress("building test/cluster")
	_, err := output(ctx, "go", "build", "-C", "test/cluster", "-buildvcs=false", "-o", filepath.Join("..", "..", clusterProgram), ".")
	done()
	if err != nil {
		return err
	}
	p.narrator.command("go", "run", "-C", "test/cluster", ".", "up")
	return show(ctx, clusterProgram, "up")
}

// An image contains one of our programs.
type image struct {
	source, binary, repository string
	tag                        *string
}

func (p *preparation) ofPrograms() []image {
	return []image{
		{".", "bin/demo/scale-to-zero", imageRepository, &p.tag},
		{"./test/app", "bin/demo/app", appImageRepository, &p.appTag},
	}
}

// compile builds the programs in the images. They are static, since the images contain nothing else.
func (p *preparation) compile(ctx context.Context, arch string) error {
	for _, i := range p.ofPrograms() {
		_, err := output(ctx, "env", "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "go", "build", "-trimpath", "-buildvcs=false",
			"-ldflags", "-s -w -X main.version=demo", "-o", i.binary, i.source)
		if err != nil {
			return err
		}
	}
	return nil
}

// images builds both images and loads them into the cluster. Their tags depend on their content, so that pods restart if
// something has changed, and only then.
func (p *preparation) images(ctx context.Context, compiled <-chan error) error {
	began := time.Now()
	done := p.narrator.progress("building the images of scale-to-zero and of the app")
	defer done()
	if err := <-compiled; err != nil {
		return err
	}
	for _, i := range p.ofPrograms() {
		var err error
		if *i.tag, err = contentTag(i.binary); err != nil {
			return err
		}
		if err := writeImage(i.binary+".tar", i.repository+":"+*i.tag, p.cluster.arch, i.binary); err != nil {
			return err
		}
		if err := p.cluster.loadImage(ctx, i.binary+".tar"); err != nil {
			return err
		}
	}
	done()
	p.narrator.line(fmt.Sprintf("%7.1fs  images of scale-to-zero and of the app, built from this checkout", time.Since(began).Seconds()))
	return nil
}

// contentTag returns an image tag that depends on a file's content.
func contentTag(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("naming an image: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", fmt.Errorf("naming an image: %w", err)
	}
	return "demo-" + hex.EncodeToString(sum.Sum(nil))[:8], nil
}

func (p *preparation) scaleToZero(ctx context.Context) error {
	p.narrator.heading("scale-to-zero, installed once for the whole cluster")
	return p.install(ctx, "upgrade", "--install", "scale-to-zero", "config/chart", "-n", ourNamespace, "--create-namespace",
		"--set", "image.repository="+imageRepository, "--set", "image.tag="+p.tag, "--wait", "--timeout", "3m")
}

// app installs the app afresh.
func (p *preparation) app(ctx context.Context) error {
	n := p.narrator
	n.heading("An app, deployed with somebody else's chart")
	n.say("It resembles Airflow: a web server, which takes 3 s to start, and a scheduler. The chart knows nothing of " +
		"scale-to-zero. For the demo, an annotation has the app sleep after 10 s without a request instead of 5 minutes.")
	n.blank()
	old, err := p.cluster.kubectl(ctx, "get", "namespace", appNamespace, "--ignore-not-found", "-o", "name")
	if err != nil {
		return err
	}
	if p.context != "" {
		// Remove what an interrupted demo has left before the namespace is used again.
		if _, err := p.cluster.helm(ctx, "uninstall", "airflow", "-n", appNamespace, "--ignore-not-found", "--wait"); err != nil {
			return err
		}
	} else if strings.TrimSpace(old) != "" {
		n.command("kubectl", "delete", "namespace", appNamespace)
		done := n.progress("removing the previous app")
		_, err := p.cluster.kubectl(ctx, "delete", "namespace", appNamespace, "--timeout", "2m")
		done()
		if err != nil {
			return err
		}
		n.saw("The previous app is gone.")
	}
	return p.install(ctx, "install", "airflow", appChart, "-n", appNamespace, "--create-namespace",
		"--set", "image.repository="+appImageRepository, "--set", "image.tag="+p.appTag, "--set", "ingress.web.enabled=true",
		"--set-string", "webserver.service.annotations.scale-to-zero/cooldown="+cooldown, "--wait", "--timeout", "2m")
}

// install runs Helm, and prints how long it took until everything was ready.
func (p *preparation) install(ctx context.Context, args ...string) error {
	p.narrator.command(append([]string{"helm"}, args...)...)
	began := time.Now()
	done := p.narrator.progress("waiting until the pods are ready")
	_, err := p.cluster.helm(ctx, args...)
	done()
	if err == nil {
		p.narrator.saw(fmt.Sprintf("Ready after %s.", seconds(time.Since(began))))
	}
	return err
}

// seconds formats a duration for people: 3.4 s, 7 ms.
func seconds(d time.Duration) string {
	if d < 100*time.Millisecond {
		return fmt.Sprintf("%.0f ms", max(1, d.Seconds()*1000))
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
