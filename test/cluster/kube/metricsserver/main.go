// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command metricsserver is metrics-server.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/component-base/cli"
	"sigs.k8s.io/metrics-server/cmd/metrics-server/app"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := cli.Run(app.NewMetricsServerCommand(ctx.Done()))
	stop()
	os.Exit(code)
}
