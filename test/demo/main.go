// Command demo shows what scale-to-zero does, for real: it boots a Kubernetes on this machine (test/cluster), deploys an
// app from a chart that knows nothing of scale-to-zero, sets one label, and tells what can be seen. What it says was
// measured; what does not happen makes it fail.
//
// It uses the standard library alone, so that it begins to speak at once on a machine that has nothing built yet, and it
// looks at the cluster through kubectl and helm, as its viewers would.
//
//	main.go      start, end and interruption
//	story.go     the steps from the label to the second sleep
//	prepare.go   what the story needs: cluster, images, charts
//	programs.go  running other programs
//	objects.go   what kubectl answers
//	browser.go   the visitor
//	narrator.go  what the viewer reads, wait.go while waiting
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

const usage = `Usage: go run ./test/demo

Boots a Kubernetes on this machine, deploys an app, labels it, and shows how it falls asleep and wakes. It takes about
15 minutes the first time and one minute later. The cluster stays until: go run -C test/cluster . down

Environment:
  SCALE_TO_ZERO_CLUSTER  name of the cluster; each checkout has one of its own
  NO_COLOR               no colours
`

// A failure is something that should have been seen and was not.
type failure struct {
	step, want, got string
}

func (f *failure) Error() string {
	return fmt.Sprintf("did not happen: %s\n  expected: %s\n  seen:     %s\n  look:     go run -C test/cluster . kubectl events -A", f.step, f.want, f.got)
}

const interrupted = 130 // as shells have it

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // who presses Ctrl-C twice means it
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
	err := checkMachine()
	if err == nil {
		err = demo(ctx, n)
	}
	if err == nil {
		return 0
	}
	if ctx.Err() != nil {
		n.blank()
		n.say("Stopped. `make demo` starts over with the same cluster; `make cluster-down` removes it.")
		return interrupted
	}
	if n.chapter != "" {
		n.blank()
		err = fmt.Errorf("in %q: %w", n.chapter, err)
	}
	fmt.Fprintln(os.Stderr, n.paint(red, "demo: ")+err.Error())
	return 1
}

// checkMachine says in one line what the cluster would say after a while.
func checkMachine() error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("the cluster needs Linux, and this is %s", runtime.GOOS)
	}
	if os.Geteuid() != 0 {
		return errors.New("the cluster needs root, for namespaces and mounts of its own")
	}
	if _, err := os.Stat("test/cluster/go.mod"); err != nil {
		return errors.New("run it in the repository's root: go run ./test/demo")
	}
	return nil
}

func demo(ctx context.Context, n *narrator) error {
	n.title("scale-to-zero: one label, and an app sleeps until somebody visits it")
	n.say("You will see it on a Kubernetes of your own, which runs on this machine in a network of its own. Building it " +
		"takes about 15 minutes the first time and no time later; the story itself takes one. Ctrl-C stops it, and " +
		"`make demo` starts it again.")
	p := &preparation{narrator: n}
	if err := p.run(ctx); err != nil {
		return err
	}
	s := &story{narrator: n, cluster: p.cluster}
	return s.run(ctx)
}
