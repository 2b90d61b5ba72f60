// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command app is the web app of the tests and the demo: a server that takes a while to start and reports what reached it, a
// client that reports what came back, and a process that does nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

const usage = `Usage:
  app                   serve; environment: PORT (8080), START_DELAY (none), NAME (the host name),
                        READY_DELAY (none; for how long /healthz answers 503 after that, and a request that comes
                        before its first 200 gets 425),
                        CRASHES (none; how many starts in one pod may crash before they are ready, each with one chance
                        in three), CRASH_DIR (where it counts them),
                        CALLS (none; a URL, or tcp://HOST:PORT, that /chain asks before it answers),
                        TCP_PORT (none; each line that comes there is answered with NAME),
                        START_CPU (none; CPU time that starting takes, on up to two CPUs at once),
                        BUSY (0; the busyExecutors of /computer/api/json, which POST /computer/busy/N sets),
                        RUN_CPU (none; for how long it uses a CPU after it has started),
                        LEDGER (none; a URL to which POST /once/ID reports ID, and which refuses a known ID)
  app get [flags] URL   request URL, and print one line of JSON for each answer
  app knock [flags] HOST:PORT[-PORT]…
                        connect, say nothing, and print one line of JSON for each port that accepts
  app cpu               print the CPU limit of this container: a number of CPUs, or none
  app sleep             do nothing until stopped
  app version
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 1 for a failure, 2 for an invalid command.
func run(ctx context.Context, args []string, env func(string) string, stdout, stderr io.Writer) int {
	command := "serve"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "serve":
		err = serve(ctx, env, stderr)
	case "get":
		var o getOptions
		if o, err = parseGet(args, stderr); err != nil {
			return 2 // the flag package has said why
		}
		err = get(ctx, o, stdout)
	case "knock":
		var o knockOptions
		if o, err = parseKnock(args, stderr); err != nil {
			return 2
		}
		knock(ctx, o, stdout)
	case "cpu":
		var limit string
		if limit, err = cpuLimit("/sys/fs/cgroup"); err == nil {
			_, err = fmt.Fprintln(stdout, limit)
		}
	case "sleep":
		<-ctx.Done()
	case "version":
		_, err = fmt.Fprintln(stdout, version())
	case "help", "-h", "--help":
		_, err = io.WriteString(stdout, usage)
	default:
		fmt.Fprintf(stderr, "app: unknown command %q\n%s", command, usage)
		return 2
	}
	if err != nil {
		fmt.Fprintln(stderr, "app:", err)
		return 1
	}
	return 0
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.GoVersion + " " + info.Main.Version
}

func newFlags(name string, stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(stderr)
	return f
}
