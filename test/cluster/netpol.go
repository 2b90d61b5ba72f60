// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"
)

const netpolName = "netpol"

// enforceNetworkPolicies starts the enforcer on every node, unless it runs. Policies apply to connections that begin later.
func (c *cluster) enforceNetworkPolicies(ctx context.Context, report *progress) error {
	return c.extend(ctx, report, netpolName, "NetworkPolicies are enforced", func() error {
		return c.each(func(n node) error { return n.enforceNetworkPolicies(ctx) })
	})
}

func (n node) enforceNetworkPolicies(ctx context.Context) error {
	if err := n.start(ctx, daemon{
		name: netpolName, binary: n.cluster.binary(netpolName),
		args: []string{"-kubeconfig", n.pki("admin", ".kubeconfig"), "-node", n.name()},
	}); err != nil {
		return err
	}
	// Packets pass as long as nobody reads the queue.
	return poll(ctx, time.Minute, "the enforcer to read its queue; see "+n.log(netpolName), func() (bool, error) {
		return n.readsQueue(), n.require(netpolName)
	})
}

// passAll stops the enforcer on every node. It removes its rules as it ends, and all packets pass.
func (c *cluster) passAll(ctx context.Context, report *progress) error {
	return c.change(ctx, func() error {
		return report.stage("NetworkPolicies are not enforced", func() error {
			return c.each(func(n node) error { return c.stop(ctx, 10*time.Second, n.named(netpolName)) })
		})
	})
}

// readsQueue reports whether anybody reads a queue of packets in the node's namespace.
func (n node) readsQueue() bool {
	id, err := n.cluster.running(n.named(netpolName))
	return err == nil && fileHas(fmt.Sprintf("/proc/%d/net/netfilter/nfnetlink_queue", id.PID), " ")
}
