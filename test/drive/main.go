// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command drive looks for lost requests: it makes apps fall asleep and wake over and over, or restarts every interceptor over
// and over, sends requests at random moments around each edge, and checks every answer.
//
//	drive edges [-count 1000] [-for 10m] [-seed N] [-apps 6] [-calm] …
//	drive restarts [-count 50] [-for 20m] [-seed N] …
//
// It has to run where it can reach the cluster IPs of Services and where pods can reach it: in a pod, on a node, or inside
// test/cluster's network. scale-to-zero must be installed. It exits with 1 if anything was lost.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `Usage:
  drive edges [flags]      make apps fall asleep and wake, with requests around every edge
  drive restarts [flags]   restart every interceptor under load, with WebSockets, downloads and events open
Flags: drive edges -help, drive restarts -help
`

// options are the flags' values. A disturbance's duration is its mean interval; 0 disables it.
type options struct {
	count    int
	duration time.Duration
	seed     uint64
	apps     int
	context  string
	image    string
	product  string
	keda     string
	longest  time.Duration
	linger   time.Duration
	calm     bool

	rollout, killPods, scale, handOver, kedaRestart, failover time.Duration

	drain, lose         time.Duration
	stopNode, startNode string // commands, to which the node's name is added
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 1 for a failure, 2 for an invalid command.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	o, err := parse(args[0], args[1:], stderr)
	if err != nil {
		return 2 // parse has printed why
	}
	if err := drive(ctx, args[0], o, stdout); err != nil {
		fmt.Fprintln(stderr, "drive:", err)
		return 1
	}
	return 0
}

func parse(command string, args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet(command, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.count, "count", 0, "end after this many cycles (edges, default 1000 without -for) or rounds (restarts, 50)")
	f.DurationVar(&o.duration, "for", 0, "end after this long")
	f.Uint64Var(&o.seed, "seed", uint64(time.Now().Unix()), "seed of everything random")
	f.StringVar(&o.context, "context", "", "context in the kubeconfig; if empty, the current one")
	f.StringVar(&o.image, "image", "scale-to-zero.test/app:dev", "image of test/app")
	f.StringVar(&o.product, "product", "scale-to-zero", "namespace of scale-to-zero")
	f.DurationVar(&o.linger, "linger", 2*time.Second,
		"how long the apps continue after they are told to stop, in whole seconds; with 0 they close their port at once")
	nodeFlags(f, &o)
	standard := 1000
	switch command {
	case "edges":
		f.IntVar(&o.apps, "apps", 6, "number of apps that cycle at the same time")
		f.StringVar(&o.keda, "keda", "keda", "namespace of KEDA")
		f.BoolVar(&o.calm, "calm", false, "disable the disturbances below")
		f.DurationVar(&o.rollout, "rollout", 20*time.Second, "mean time between restarts of an app")
		f.DurationVar(&o.killPods, "kill-pods", 20*time.Second, "mean time between deletions of an app's pods")
		f.DurationVar(&o.scale, "scale", time.Minute, "mean time between scaling an app to 2 replicas and back")
		f.DurationVar(&o.handOver, "autoscalers", 30*time.Second, "mean time between HPAs that come or go; half of the apps begin with one")
		f.DurationVar(&o.kedaRestart, "keda-restart", 4*time.Minute, "mean time between restarts of KEDA")
		f.DurationVar(&o.failover, "controller-failover", 2*time.Minute, "mean time between terminations of the leading controller")
	case "restarts":
		standard = 50
		f.IntVar(&o.apps, "apps", 4, "number of apps; every second one stays awake, the others cycle")
		f.DurationVar(&o.longest, "longest", 12*time.Second,
			"longest WebSocket, download or event stream; the interceptors' drain time-out must allow it")
	default:
		fmt.Fprint(stderr, usage)
		return o, errors.New("parsing arguments: no such command")
	}
	if err := f.Parse(args); err != nil {
		return o, fmt.Errorf("parsing flags: %w", err)
	}
	if f.NArg() > 0 || o.apps < 1 || o.count < 0 {
		fmt.Fprintln(stderr, "drive: want no arguments, and at least one app")
		return o, errors.New("parsing arguments: bad count")
	}
	if o.lose > 0 && (o.stopNode == "" || o.startNode == "") {
		fmt.Fprintln(stderr, "drive: -lose-node-every needs -stop-node and -start-node")
		return o, errors.New("parsing arguments: no command for nodes")
	}
	if o.count == 0 && o.duration == 0 {
		o.count = standard
	}
	if o.calm {
		o.rollout, o.killPods, o.scale, o.handOver, o.kedaRestart, o.failover = 0, 0, 0, 0, 0, 0
	}
	return o, nil
}

// nodeFlags are the flags of what happens to nodes.
func nodeFlags(f *flag.FlagSet, o *options) {
	f.DurationVar(&o.drain, "drain-every", 0, "mean time between drains of a node, with kubectl; 0 drains none")
	f.DurationVar(&o.lose, "lose-node-every", 0,
		"mean time between losses of a node that has no control plane, with the two commands below; 0 loses none. What was under way\n"+
			"before Kubernetes has noticed may be lost, and is counted apart")
	f.StringVar(&o.stopNode, "stop-node", "", "command that stops a node as a power failure does; its name is added")
	f.StringVar(&o.startNode, "start-node", "", "command that starts the node again and waits until it is Ready; its name is added")
}

// drive runs a command on a world of its own, which it removes, and prints the result.
func drive(ctx context.Context, command string, o options, stdout io.Writer) (err error) {
	fmt.Fprintf(stdout, "drive %s: seed %d\n", command, o.seed)
	w, err := newWorld(ctx, o, stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.remove(context.WithoutCancel(ctx))) }()
	running := ctx
	if o.duration > 0 {
		var cancel context.CancelFunc
		running, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	if command == "edges" {
		w.edges(running)
	} else {
		err = w.restarts(running)
	}
	w.report.summary(stdout, o.seed)
	if ctx.Err() != nil {
		err = errors.Join(err, errors.New("interrupted"))
	}
	return errors.Join(err, w.report.verdict())
}
