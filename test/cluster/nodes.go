// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxNodes is how many nodes a cluster may have. Each needs about 250 MB, and a share of one machine.
const maxNodes = 9

// A node runs pods: containerd, a kubelet and kube-proxy, in a network namespace, folders and cgroups of its own. The control plane and
// CoreDNS are in the namespace of the first node. Names and files of the first node are those of the cluster.
type node struct {
	cluster *cluster
	number  int // from 1
}

// nodes are the cluster's nodes. The folders tell how many there are.
func (c *cluster) nodes() []node {
	nodes := []node{{c, 1}}
	for exists(node{c, len(nodes) + 1}.path()) {
		nodes = append(nodes, node{c, len(nodes) + 1})
	}
	return nodes
}

// each does the same on all nodes at once.
func (c *cluster) each(do func(node) error) error {
	nodes := c.nodes()
	results := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() { results <- do(n) }()
	}
	var errs []error
	for range nodes {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

// findNode returns the node of that name.
func (c *cluster) findNode(name string) (node, error) {
	for _, n := range c.nodes() {
		if n.name() == name {
			return n, nil
		}
	}
	return node{}, fmt.Errorf("cluster %s has no node %q: its nodes are node1 to node%d", c.name, name, len(c.nodes()))
}

func (n node) name() string { return "node" + strconv.Itoa(n.number) }
func (n node) alone() bool  { return len(n.cluster.nodes()) == 1 }
func (n node) ip() string   { return nodePrefix + strconv.Itoa(n.number) }
func (n node) zone() string { return "zone" + strconv.Itoa(n.number) }

func (n node) mac() net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(n.number)} }

// object is the path of the Node in the API.
func (n node) object() string { return "/api/v1/nodes/" + n.name() }

// podCIDR is what a node's pods get their addresses from: everything for a single node, else 254 addresses each.
func (n node) podCIDR() string {
	if n.alone() {
		return podCIDR
	}
	return fmt.Sprintf("%s%d.0/24", podPrefix, n.number)
}

// named adds the node to a name, except for the first node's.
func (n node) named(name string) string {
	if n.number == 1 {
		return name
	}
	return name + "-" + n.name()
}

func (n node) path(elem ...string) string {
	if n.number > 1 {
		elem = append([]string{n.name()}, elem...)
	}
	return n.cluster.path(elem...)
}

// globalName is for what cannot be in the cluster's folder. No cluster's name has a dot.
func (n node) globalName() string {
	if n.number == 1 {
		return n.cluster.globalName()
	}
	return n.cluster.globalName() + "." + n.name()
}

func (n node) namespace() namespace         { return namespace(n.globalName()) }
func (n node) containerdSocket() string     { return n.path("run", "containerd.sock") }
func (n node) log(name string) string       { return n.cluster.log(n.named(name)) }
func (n node) pki(name, kind string) string { return n.cluster.pki(n.named(name) + kind) }

// apiServer is the API server's address for the node's processes.
func (n node) apiServer() string {
	if n.number == 1 {
		return apiServer
	}
	return "https://" + net.JoinHostPort(nodeIP, "6443")
}

// start runs a daemon on the node, unless it runs already.
func (n node) start(ctx context.Context, d daemon) error {
	d.namespace, d.component, d.name = n.namespace(), d.name, n.named(d.name)
	return n.cluster.start(ctx, d)
}

// require fails if one of the daemons does not run on the node.
func (n node) require(names ...string) error {
	for _, name := range names {
		if err := n.cluster.require(n.named(name)); err != nil {
			return err
		}
	}
	return nil
}

func (n node) waitHealthy(ctx context.Context, name, url string) error {
	return n.cluster.waitHealthyIn(ctx, n.namespace(), n.named(name), url)
}

// daemons are the names of what runs on the node besides pods.
func (n node) daemons() []string {
	return []string{n.named("containerd"), n.named("kubelet"), n.named("kube-proxy")}
}

// fail does to a node what a power failure does: nothing that it sends any longer reaches anybody, its processes end at once, and what a
// machine keeps in its memory is gone. Its disk stays.
func (n node) fail(ctx context.Context) error {
	if n.number == 1 {
		return errors.New("node1 has the control plane: stop another node")
	}
	// The link goes first: a process that ends closes its connections, which its peers would notice.
	if err := n.unplug(); err != nil {
		return fmt.Errorf("unplugging %s: %w", n.name(), err)
	}
	err := poll(ctx, 20*time.Second, "the processes of "+n.name()+" to end", func() (bool, error) {
		left, err := strays(n.globalName(), n.containerdSocket())
		if err != nil || len(left) == 0 {
			return err == nil, err
		}
		return false, stopProcesses(ctx, left, 0)
	})
	if err != nil {
		return err
	}
	for _, name := range append(n.daemons(), n.named(netpolName)) {
		os.Remove(n.cluster.pidFile(name))
	}
	n.removeShimSockets()
	return firstError(
		func() error { return unmountBelow(n.path()) },
		func() error { return deleteCgroups(ctx, n.globalName()) },
		n.namespace().delete,
		func() error { return os.RemoveAll(n.path("run", "containerd")) },
		func() error { return os.RemoveAll(n.path("run", "runc")) },
	)
}

// boot starts what does not run on the node. The control plane has to run.
func (n node) boot(ctx context.Context) error {
	enforces := n.cluster.require(netpolName) == nil
	return firstError(n.ensureNetwork,
		func() error { return n.upContainerd(ctx) },
		func() error { return n.upKubelet(ctx) },
		func() error {
			if !enforces {
				return nil
			}
			return n.enforceNetworkPolicies(ctx)
		})
}

// stopNode and startNode are commands.
func (c *cluster) stopNode(ctx context.Context, name string) error {
	return c.withNode(ctx, name, node.fail)
}

func (c *cluster) startNode(ctx context.Context, name string) error {
	return c.withNode(ctx, name, node.boot)
}

func (c *cluster) withNode(ctx context.Context, name string, do func(node, context.Context) error) error {
	return c.change(ctx, func() error {
		n, err := c.findNode(name)
		if err != nil {
			return err
		}
		return do(n, ctx)
	})
}

// checkNodes refuses a number of nodes that the cluster cannot get any more. 0 means as many as it has.
func (c *cluster) checkNodes(want int) (int, error) {
	have := len(c.nodes())
	switch {
	case want == 0:
		return have, nil
	case want < 0 || want > maxNodes:
		return 0, fmt.Errorf("--nodes is %d; allowed is 1 to %d", want, maxNodes)
	case want < have || want > have && exists(c.path("pki")):
		return 0, fmt.Errorf("cluster %s has %d nodes, and that number cannot change: run `down` first", c.name, have)
	}
	return want, nil
}

// makeFolders makes the node's folders.
func (n node) makeFolders() error {
	if err := checkSocket(n.containerdSocket()); err != nil {
		return err
	}
	for _, dir := range []string{"run", "data", "conf/cni"} {
		if err := os.MkdirAll(n.path(dir), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// checkSocket refuses a path that is too long for a socket.
func checkSocket(path string) error {
	if length := len(path + ".ttrpc"); length > len(unix.RawSockaddrUnix{}.Path)-1 {
		return fmt.Errorf("the path of %s has %d characters, and a socket's may have %d: use a shorter --name or XDG_CACHE_HOME",
			path, length, len(unix.RawSockaddrUnix{}.Path)-1)
	}
	return nil
}

// nodeFolders are the folders of all nodes, however few of them are complete.
func (c *cluster) nodeFolders() []node {
	found := []node{{c, 1}}
	dirs, _ := filepath.Glob(c.path("node*")) // the only possible error is a bad pattern
	for _, dir := range dirs {
		if number, err := strconv.Atoi(filepath.Base(dir)[len("node"):]); err == nil && number > 1 {
			found = append(found, node{c, number})
		}
	}
	return found
}
