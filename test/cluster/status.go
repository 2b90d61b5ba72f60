// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

var errNotUp = errors.New("the cluster is not up")

// status prints what is running, and fails if the cluster cannot be used.
func (c *cluster) status(ctx context.Context, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "cluster\t%s\n", c.name)
	if c.mustBeUp() != nil {
		fmt.Fprintln(w, "state\tdown")
		return errNotUp
	}
	fmt.Fprintf(w, "network namespace\t%s\nfolder\t%s\n", c.namespace().path(), c.path())
	complete := true
	for _, name := range c.daemons() {
		id, err := c.running(name)
		if err != nil {
			complete = false
			fmt.Fprintf(w, "%s\tnot running, see %s\n", name, c.log(name))
			continue
		}
		fmt.Fprintf(w, "%s\trunning, process %d\n", name, id.PID)
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	ready := true
	for _, n := range c.nodes() {
		is := api.has(ctx, n.object(), "Ready")
		fmt.Fprintf(w, "%s\t%s\n", choose(n.alone(), "node", n.name()), choose(is, "Ready", "not Ready"))
		ready = ready && is
	}
	fmt.Fprintf(w, "metrics-server\t%s\n", api.state(ctx, metricsServerDeployment, api.metricsServerAvailable))
	fmt.Fprintf(w, "KEDA\t%s\n", api.state(ctx, "/api/v1/namespaces/keda", api.kedaAvailable))
	fmt.Fprintf(w, "Traefik\t%s\n", api.state(ctx, "/api/v1/namespaces/"+traefikNamespace, api.traefikAvailable))
	for _, name := range c.pidFiles("forward-*") {
		if id, err := c.running(name); err == nil {
			fmt.Fprintf(w, "forward\t%s, process %d\n", c.forwardTarget(name), id.PID)
		}
	}
	if !complete || !ready {
		return errors.New("the cluster is only partly up: `up` completes it, `down` removes it")
	}
	return nil
}

func choose(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}

// state describes a component that is installed if there is an object at path.
func (a *apiClient) state(ctx context.Context, path string, available func(context.Context) bool) string {
	switch err := a.get(ctx, path, nil); {
	case errors.Is(err, errNotFound):
		return "not installed"
	case err != nil:
		return "unknown, the API server does not answer"
	}
	return choose(available(ctx), "Available", "not Available")
}
