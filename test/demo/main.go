// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command demo shows scale-to-zero at work: it boots a Kubernetes on this machine (test/cluster), or uses one that the viewer
// names, deploys an app from a chart that knows nothing of scale-to-zero, sets one label, and shows what happens. It measures
// whatever it says, and fails if something does not happen.
//
// It uses only the standard library, so that it starts at once on a machine that has nothing built yet, and it looks at the
// cluster through kubectl and helm, as its viewers would.
//
//	main.go      start, end and interruption
//	story.go     the steps from the label to the second sleep
//	prepare.go   what the story needs: cluster, images, charts
//	own.go       the viewer's own cluster instead of ours
//	image.go     images of the two programs
//	programs.go  running other programs
//	objects.go   what kubectl answers
//	browser.go   the visitor
//	narrator.go  what the viewer reads; wait.go: the same, while waiting
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

const usage = `Usage: go run ./test/demo

Deploys an app on Kubernetes, labels it, and shows how it falls asleep and wakes up.

On a cluster that you have (needs kubectl, helm and Go):

  make demo CONTEXT=kind-kind

Otherwise it builds and boots a cluster on this machine: up to a quarter of an hour the first
time, one minute after that. The cluster stays until: go run -C test/cluster . down

Environment:
  DEMO_CONTEXT           context of your cluster: kind, k3d, minikube, MicroK8s, Docker Desktop, OrbStack or Rancher Desktop.
                         The current context is not used. The demo removes what it creates there.
  DEMO_LOAD              for other clusters: the command that loads the image archive {} into the nodes
  SCALE_TO_ZERO_CLUSTER  name of the demo's own cluster (default: one for each checkout)
  NO_COLOR               disables colours
`

// A failure is something that should have happened and did not.
type failure struct {
	step, want, got string
}

func (f *failure) Error() string {
	return fmt.Sprintf("did not happen: %s\n  expected: %s\n  seen:     %s", f.step, f.want, f.got)
}

const interrupted = 130 // the exit code that shells use

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	if len(args) > 0 {
		fmt.Fprint(os.Stderr, usage)
		if args[0] == "-h" || args[0] == "--help" || args[0] == "-help" {
			return 0
		}
		return 2
	}
	n := newNarrator(os.Stdout, os.Getenv)
	own := os.Getenv("DEMO_CONTEXT")
	err := checkMachine(own != "")
	if err == nil {
		err = demo(ctx, n, own, os.Getenv("DEMO_LOAD"))
	}
	if err == nil {
		return 0
	}
	if ctx.Err() != nil {
		n.blank()
		if own == "" {
			n.say("Stopped. `make demo` starts again with the same cluster; `make cluster-down` removes it.")
		} else {
			n.say("Stopped.")
		}
		return interrupted
	}
	n.blank()
	fmt.Fprintln(os.Stderr, n.paint(red, "demo: ")+err.Error())
	return 1
}

// checkMachine reports in one line what the cluster's program would report later.
func checkMachine(own bool) error {
	if _, err := os.Stat("test/cluster/go.mod"); err != nil {
		return errors.New("run it from the repository's root: go run ./test/demo")
	}
	if own {
		return nil
	}
	if runtime.GOOS != "linux" {
		return fmt.Errorf("the cluster needs Linux, and this is %s", runtime.GOOS)
	}
	if os.Geteuid() != 0 {
		return errors.New("the cluster needs root, for its namespaces and mounts")
	}
	return nil
}

func demo(ctx context.Context, n *narrator, own, load string) error {
	n.title("scale-to-zero: one label, and an app sleeps until somebody visits it")
	if own == "" {
		n.say("The demo runs on a Kubernetes of its own, on this machine and in its own network. Building it takes up to a quarter " +
			"of an hour the first time; after that the demo takes a minute. To use a cluster that you have, run " +
			"`make demo CONTEXT=kind-kind`. Ctrl-C stops the demo, and `make demo` starts it again.")
	}
	p := &preparation{narrator: n, context: own, load: load}
	err := p.run(ctx)
	if err == nil {
		s := &story{narrator: n, cluster: p.cluster}
		err = s.run(ctx)
	}
	err = n.inChapter(err)
	if own == "" || p.cluster.arch == "" { // nothing to remove
		if _, unseen := errors.AsType[*failure](err); unseen {
			err = fmt.Errorf("%w\n  look at:  go run -C test/cluster . kubectl events -A", err)
		}
		return err
	}
	if err != nil && ctx.Err() == nil { // they end soon
		if events, err := p.cluster.kubectl(ctx, "events", "-n", appNamespace); err == nil {
			n.blank()
			n.command("kubectl", "events", "-n", appNamespace)
			n.verbatim(events)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute) // also after Ctrl-C
	defer cancel()
	return errors.Join(err, n.inChapter(p.cluster.cleanUp(ctx, n)))
}
