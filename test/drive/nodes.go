// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// settled is how long the proxies of all nodes and the interceptors may take to hear of what Kubernetes has noticed.
	settled = 2 * time.Second
	// longestLoss is how long a node stays away at most after Kubernetes has noticed.
	longestLoss = time.Minute
)

// nodeDisturbances drain nodes, and lose them. One node at a time is concerned.
func (w *world) nodeDisturbances() []disturbance {
	one := make(chan struct{}, 1)
	alone := func(do func(context.Context, *rand.Rand) error) func(context.Context, *rand.Rand) error {
		return func(ctx context.Context, rng *rand.Rand) error {
			select {
			case one <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			defer func() { <-one }()
			return do(ctx, rng)
		}
	}
	return []disturbance{
		{"nodes drained", w.options.drain, alone(w.drain)},
		{"nodes lost", w.options.lose, alone(w.lose)},
	}
}

// drain drains a node with kubectl, and makes it usable again a while later.
func (w *world) drain(ctx context.Context, rng *rand.Rand) (err error) {
	nodes, err := w.nodes(ctx)
	if err != nil {
		return err
	}
	name := nodes[rng.IntN(len(nodes))].Name
	kubectl := func(ctx context.Context, args ...string) error {
		if w.options.context != "" {
			args = append(args, "--context", w.options.context)
		}
		return command(ctx, append([]string{"kubectl"}, args...))
	}
	defer func() { err = errors.Join(err, kubectl(context.WithoutCancel(ctx), "uncordon", name)) }()
	if err := kubectl(ctx, "drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=3m"); err != nil {
		return err
	}
	linger(ctx, draw(rng, 20*time.Second))
	return nil
}

// lose stops a node as a power failure does, waits until Kubernetes has noticed and for a while longer, and starts it again. What was
// under way when Kubernetes noticed may be lost.
func (w *world) lose(ctx context.Context, rng *rand.Rand) (err error) {
	nodes, err := w.nodes(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, n := range nodes {
		if _, control := n.Labels["node-role.kubernetes.io/control-plane"]; !control {
			names = append(names, n.Name)
		}
	}
	if len(names) == 0 {
		return errors.New("losing a node: all have a control plane")
	}
	name := names[rng.IntN(len(names))]
	w.report.lose(name, time.Now())
	defer func() {
		w.report.noticed(time.Now()) // it is back, if Kubernetes has not noticed
		err = errors.Join(err, command(context.WithoutCancel(ctx), append(strings.Fields(w.options.startNode), name)))
	}()
	if err := command(ctx, append(strings.Fields(w.options.stopNode), name)); err != nil {
		return err
	}
	if err := poll(ctx, 5*time.Minute, "Kubernetes to notice that "+name+" is lost", func() (bool, error) {
		return w.hasNoticed(ctx, name), nil
	}); err != nil {
		return err
	}
	linger(ctx, settled)
	w.report.noticed(time.Now())
	linger(ctx, draw(rng, longestLoss))
	return nil
}

// hasNoticed reports whether neither the node nor a pod on it counts as ready.
func (w *world) hasNoticed(ctx context.Context, name string) bool {
	n, err := w.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return false
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return false
		}
	}
	pods, err := w.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
	if err != nil {
		return false
	}
	for _, p := range pods.Items {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return false
			}
		}
	}
	return true
}

// nodes are those that take pods.
func (w *world) nodes(ctx context.Context) ([]corev1.Node, error) {
	list, err := w.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	if len(list.Items) < 2 {
		return nil, fmt.Errorf("listing nodes: there are %d, and without one of them another is needed", len(list.Items))
	}
	return list.Items, nil
}

// command runs a program. What it prints is shown only if it fails.
func command(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func linger(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
