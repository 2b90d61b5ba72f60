// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The node's address is on one end of a veth pair; the other end is inside the namespace as well. A dummy interface would
// do, but not every kernel has its driver, and loopback addresses are not valid endpoints.
const (
	nodeLink = "node0"
	peerLink = "node0p"
)

// hasNamespace tells whether the network namespace is there. A file is not enough: after a reboot or a crash it may be
// empty, with nothing mounted on it.
func (c *cluster) hasNamespace() bool {
	var fs unix.Statfs_t
	return unix.Statfs(c.namespacePath(), &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// ensureNetwork makes the namespace and its contents. Every step can be repeated.
func (c *cluster) ensureNetwork() error {
	if !c.hasNamespace() {
		if err := os.Remove(c.namespacePath()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		// ip makes /run/netns a shared mount of its own, which later `ip netns` commands rely on
		if out, err := exec.Command("ip", "netns", "add", c.globalName()).CombinedOutput(); err != nil {
			return fmt.Errorf("making the network namespace: %w: %s", err, out)
		}
	}
	if err := c.inNamespace(configureNetwork); err != nil {
		return fmt.Errorf("setting up the network namespace: %w", err)
	}
	return nil
}

func configureNetwork() error {
	if _, err := netlink.LinkByName(nodeLink); err != nil {
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nodeLink}, PeerName: peerLink}
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("adding a veth pair: %w", err)
		}
	}
	for _, name := range []string{"lo", nodeLink, peerLink} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("setting %s up: %w", name, err)
		}
	}
	node, err := netlink.LinkByName(nodeLink)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(nodeCIDR)
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(node, addr); err != nil {
		return fmt.Errorf("adding %s: %w", nodeCIDR, err)
	}
	// DNAT comes after routing, so without a route of some kind the node could not connect to a Service at all
	_, services, err := net.ParseCIDR(serviceCIDR)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: node.Attrs().Index, Dst: services}); err != nil {
		return fmt.Errorf("adding the route for Services: %w", err)
	}
	return setNetworkSysctls()
}

func setNetworkSysctls() error {
	for _, s := range []struct{ name, value string }{
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv4/conf/all/rp_filter", "0"},
		{"net/ipv4/conf/default/rp_filter", "0"},
		// a Service without endpoints is rejected by an ICMP error; if that is rate-limited, clients time out instead
		{"net/ipv4/icmp_ratelimit", "0"},
		// pod to Service to pod on the same bridge: the rules must see the answer too, or it has the wrong source address
		{"net/bridge/bridge-nf-call-iptables", "1"},
	} {
		if err := os.WriteFile("/proc/sys/"+s.name, []byte(s.value), 0o644); err != nil {
			return fmt.Errorf("setting sysctl: %w", err)
		}
	}
	return nil
}

// inNamespace runs f on a thread in the cluster's network namespace. What f starts or opens stays in there. The thread
// ends with its goroutine, so that no other goroutine runs in the namespace.
func (c *cluster) inNamespace(f func() error) error {
	if !c.hasNamespace() {
		return fmt.Errorf("cluster %s has no network namespace: it is not up", c.name)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := enter(c.namespacePath()); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func enter(path string) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("entering %s: %w", path, err)
	}
	return nil
}

// dial connects to an address inside the namespace. The address is an IP, because a name would be resolved outside.
func (c *cluster) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = c.inNamespace(func() error {
		d := net.Dialer{Timeout: 10 * time.Second}
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// execInNamespace replaces this process by the command, inside the namespace. It returns only on errors.
func (c *cluster) execInNamespace(binary string, argv, env []string) error {
	return c.inNamespace(func() error {
		return fmt.Errorf("running %s: %w", binary, syscall.Exec(binary, argv, env))
	})
}

// deleteNetwork removes the namespace, and with it the interfaces, routes and rules.
func (c *cluster) deleteNetwork() error {
	if !exists(c.namespacePath()) {
		return nil
	}
	if c.hasNamespace() {
		if err := unix.Unmount(c.namespacePath(), unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting %s: %w", c.namespacePath(), err)
		}
	}
	if err := os.Remove(c.namespacePath()); err != nil {
		return fmt.Errorf("removing the network namespace: %w", err)
	}
	return nil
}

// namespaceID is the target of /proc/PID/ns/net for every process in the namespace.
func (c *cluster) namespaceID() (os.FileInfo, error) {
	if !c.hasNamespace() {
		return nil, os.ErrNotExist
	}
	return os.Stat(c.namespacePath())
}

// cniConfiguration describes a plain bridge with addresses from one subnet.
func (c *cluster) cniConfiguration() map[string]any {
	return map[string]any{
		"cniVersion": "1.0.0", "name": c.globalName(),
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
				"ipam": map[string]any{
					"type": "host-local", "dataDir": c.path("run", "cni"),
					"ranges": [][]map[string]string{{{"subnet": podCIDR}}},
					"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	}
}

// removeCNIResults deletes what libcni stores about this cluster's pods. libcni does so itself when a pod ends normally.
// There is one file for each network, and those for loopback have the same names in all clusters, so this selects by the
// pod's number.
func (c *cluster) removeCNIResults() {
	const results = "/var/lib/cni/results/"
	pods, _ := filepath.Glob(c.path("data", "containerd", "io.containerd.grpc.v1.cri", "sandboxes", "*")) // the only error is a bad pattern
	for _, pod := range pods {
		files, _ := filepath.Glob(results + "*-" + filepath.Base(pod) + "-*")
		for _, f := range files {
			os.Remove(f)
		}
	}
	removeIfEmpty(results, filepath.Dir(filepath.Clean(results)))
}

// removeIfEmpty deletes folders that others may use or have created.
func removeIfEmpty(dirs ...string) {
	for _, dir := range dirs {
		_ = syscall.Rmdir(dir) // fails on purpose if it is not empty
	}
}
