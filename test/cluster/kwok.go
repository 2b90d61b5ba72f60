// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	kwokName   = "kwok"
	kwokModule = "sigs.k8s.io/kwok"
	// kwokPods are the addresses of pods that kwok plays.
	kwokPods = "198.18.128.0/17"
	// kwokServices are further addresses of Services: the cluster's own range has 4,094.
	kwokServices = "198.19.64.0/18"
	// kwokPodsPerNode is what kwok.yaml says.
	kwokPodsPerNode = 2000
)

// kwokConfiguration says what becomes of nodes and pods: they are ready, or gone, at once.
//
//go:embed kwok.yaml
var kwokConfiguration []byte

func kwokCommand(run runner) *cobra.Command {
	nodes := 1
	cmd := &cobra.Command{
		Use: kwokName, Short: "Add nodes without machines, whose pods are played by kwok", Args: cobra.NoArgs,
		Long: "Adds nodes called kwok-1, kwok-2 … to a running cluster. No process runs for their pods: kwok " + kwokVersion + " says\n" +
			"that they are ready. The nodes have the label type=kwok and a taint, kwok=true:NoSchedule. The pods have addresses in\n" +
			kwokPods + ", all of which are the cluster's network namespace itself: a server that listens there on every address\n" +
			"answers for all of them. Services may have addresses in " + kwokServices + " too. The first time it is built, which takes\n" +
			"about 3 minutes.",
		RunE: run(func(ctx context.Context, c *cluster, _ []string) error { return c.addKwok(ctx, newProgress(), nodes) }),
	}
	cmd.Flags().IntVar(&nodes, "nodes", nodes, fmt.Sprintf("number of nodes; each takes %d pods", kwokPodsPerNode))
	return cmd
}

// addKwok starts kwok, unless it runs, and adds the nodes.
func (c *cluster) addKwok(ctx context.Context, report *progress, nodes int) error {
	return c.extend(ctx, report, kwokName, fmt.Sprintf("%d nodes without machines are Ready", nodes), func() error {
		if err := c.namespace().do(addKwokAddresses); err != nil {
			return err
		}
		if _, err := writeFile(c.path("conf", "kwok.yaml"), kwokConfiguration, 0o644); err != nil {
			return err
		}
		if err := c.start(ctx, daemon{name: kwokName, binary: c.binary(kwokName), args: []string{
			"--kubeconfig=" + c.kubeconfig(), "--config=" + c.path("conf", "kwok.yaml"),
			"--manage-nodes-with-label-selector=type=kwok", "--cidr=" + kwokPods, "--node-ip=" + nodeIP,
		}}); err != nil {
			return err
		}
		manifest, err := kwokObjects(nodes)
		if err != nil {
			return err
		}
		if err := c.apply(ctx, manifest); err != nil {
			return err
		}
		return c.waitForKwok(ctx, nodes)
	})
}

func (c *cluster) waitForKwok(ctx context.Context, nodes int) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	return poll(ctx, time.Minute, "kwok's nodes; see "+c.log(kwokName), func() (bool, error) {
		for i := range nodes {
			if !api.has(ctx, "/api/v1/nodes/"+kwokNode(i), "Ready") {
				return false, c.require(kwokName)
			}
		}
		return true, nil
	})
}

// addKwokAddresses makes the addresses of kwok's pods the namespace's own.
func addKwokAddresses() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	_, pods, err := net.ParseCIDR(kwokPods)
	if err != nil {
		return err
	}
	route := &netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: pods, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("adding the addresses of kwok's pods: %w", err)
	}
	return nil
}

// kwokObjects are the nodes and the range of Services' addresses, as a manifest.
func kwokObjects(nodes int) ([]byte, error) {
	items := []any{map[string]any{
		"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": map[string]any{"name": "kwok"},
		"spec": map[string]any{"cidrs": []string{kwokServices}},
	}}
	for i := range nodes {
		items = append(items, map[string]any{
			"apiVersion": "v1", "kind": "Node",
			"metadata": map[string]any{"name": kwokNode(i), "labels": map[string]string{"type": "kwok", "kubernetes.io/os": "linux"}},
			"spec":     map[string]any{"taints": []any{map[string]string{"key": "kwok", "value": "true", "effect": "NoSchedule"}}},
		})
	}
	return json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
}

// kwokNode is the name of a node, counted from 0.
func kwokNode(i int) string { return fmt.Sprintf("kwok-%d", i+1) }
