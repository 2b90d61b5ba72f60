// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command target runs an interceptor without a cluster. Its routes come as JSON on standard input, one api.Routes with its pods a line.
// It says "ready" on standard output, and ends when standard input does.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

func main() {
	grpc, health := flag.String("grpc", "", "address of the gRPC server"), flag.String("health", "", "address of /readyz")
	memory := flag.Int64("memory", 0, "how many bytes this process may use")
	flag.Parse()
	debug.SetMemoryLimit(*memory / 10 * 8) // as the interceptor command does
	ctx, stop := context.WithCancel(context.Background())
	err := interceptor.Run(ctx, interceptor.Options{
		Cluster: cluster{stop}, PodName: "target", GRPCAddress: *grpc, HealthAddress: *health, ListenHost: "127.0.0.1",
		Memory: *memory, DrainTimeout: 1, PeerAddress: func(p peer.Peer) string { return p.Addr }, Log: logr.Discard(),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// cluster is standard input.
type cluster struct{ stop context.CancelFunc }

// Watch implements interceptor.Cluster.
func (c cluster) Watch(ctx context.Context, sink interceptor.Sink) error {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			c.stop()
			<-ctx.Done()
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading routes: %w", err)
		}
		if string(line) == "\n" {
			sink.Synced()
			fmt.Println("ready")
			continue
		}
		var s route.Service
		if err := json.Unmarshal(line, &s); err != nil {
			return fmt.Errorf("reading a route: %w", err)
		}
		sink.SetService(s)
	}
}

// Scale implements interceptor.Cluster: nothing ever wakes.
func (cluster) Scale(context.Context, string, api.Workload, int32) (bool, error) { return false, nil }

// Replicas implements interceptor.Cluster.
func (cluster) Replicas(context.Context, string, api.Workload) (int32, error) { return 1, nil }

// WakeRequested implements interceptor.Cluster.
func (cluster) WakeRequested(scaler.Wake) {}

// Warn implements interceptor.Cluster.
func (cluster) Warn(scaler.Warning) {}
