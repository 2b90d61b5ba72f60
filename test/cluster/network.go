// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/vishvananda/netlink"
)

// A node's address is on one end of a veth pair. The other end of a single node's is inside its namespace as well; those of several
// are ports of a bridge, in a namespace without anything else: no rule of a node sees what others send to each other. A dummy
// interface would do for a single node, but not every kernel has its driver, and loopback addresses are not valid endpoints.
const (
	nodeLink   = "node0"
	peerLink   = "node0p"
	bridgeLink = "nodes"
)

// ensureBridge makes the bridge between several nodes. It can be repeated.
func (c *cluster) ensureBridge() error {
	if len(c.nodes()) == 1 {
		return nil
	}
	if err := c.bridge().ensure(); err != nil {
		return err
	}
	return c.bridge().do(func() error {
		if _, err := netlink.LinkByName(bridgeLink); err != nil {
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeLink}}); err != nil {
				return fmt.Errorf("adding the bridge between the nodes: %w", err)
			}
		}
		// the bridge is a cable: what passes it is not to be seen by rules, of which there are none
		if err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0o644); err != nil {
			return fmt.Errorf("setting sysctl: %w", err)
		}
		return setUp(bridgeLink)
	})
}

// ensureNetwork makes the node's namespace and its contents. Every step can be repeated.
func (n node) ensureNetwork() error {
	if err := n.namespace().ensure(); err != nil {
		return err
	}
	if err := n.ensureLink(); err != nil {
		return fmt.Errorf("linking %s: %w", n.name(), err)
	}
	if err := n.namespace().do(n.configureNetwork); err != nil {
		return fmt.Errorf("setting up the network namespace of %s: %w", n.name(), err)
	}
	return nil
}

// ensureLink adds the veth pair.
func (n node) ensureLink() error {
	if n.alone() {
		return n.namespace().do(func() error {
			if err := n.addLink(&netlink.Veth{PeerName: peerLink}); err != nil {
				return err
			}
			return setUp(peerLink)
		})
	}
	bridge, err := os.Open(n.cluster.bridge().path())
	if err != nil {
		return err
	}
	defer bridge.Close()
	if err := n.namespace().do(func() error {
		return n.addLink(&netlink.Veth{PeerName: n.name(), PeerNamespace: netlink.NsFd(bridge.Fd())})
	}); err != nil {
		return err
	}
	return n.cluster.bridge().do(func() error {
		port, err := netlink.LinkByName(n.name())
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName(bridgeLink)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(port, bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(port)
	})
}

func (n node) addLink(pair *netlink.Veth) error {
	if _, err := netlink.LinkByName(nodeLink); err == nil {
		return nil
	}
	pair.Name, pair.HardwareAddr = nodeLink, n.mac()
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("adding a veth pair: %w", err)
	}
	return nil
}

// unplug removes the node's link from the bridge. Nothing that the node sends from now on reaches anybody.
func (n node) unplug() error {
	return n.cluster.bridge().do(func() error {
		port, err := netlink.LinkByName(n.name())
		if err != nil {
			return nil //nolint:nilerr // it is not plugged in
		}
		return netlink.LinkDel(port)
	})
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	return nil
}

func (n node) configureNetwork() error {
	for _, name := range []string{"lo", nodeLink} {
		if err := setUp(name); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName(nodeLink)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(n.ip() + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("adding %s: %w", addr, err)
	}
	// DNAT comes after routing, so without a route of some kind the node could not connect to a Service at all
	if err := addRoute(link, serviceCIDR, ""); err != nil {
		return err
	}
	for _, other := range n.cluster.nodes() {
		if other.number == n.number {
			continue
		}
		if err := n.reach(link, other); err != nil {
			return fmt.Errorf("connecting %s to %s: %w", n.name(), other.name(), err)
		}
	}
	return setNetworkSysctls()
}

// reach routes the other node's pods. The other node's hardware address is fixed: with ARP, senders would learn of its loss after 3 s
// ("no route to host"), while behind a router or an overlay nobody answers at all.
func (n node) reach(link netlink.Link, other node) error {
	if err := netlink.NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: net.ParseIP(other.ip()), HardwareAddr: other.mac(),
	}); err != nil {
		return err
	}
	return addRoute(link, other.podCIDR(), other.ip())
}

// addRoute adds a route over link, by way of a router unless that is empty.
func addRoute(link netlink.Link, to, router string) error {
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: net.ParseIP(router)}); err != nil {
		return fmt.Errorf("adding the route to %s: %w", to, err)
	}
	return nil
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

// cniConfiguration describes a plain bridge with addresses from one subnet.
func (n node) cniConfiguration() map[string]any {
	return map[string]any{
		"cniVersion": "1.0.0", "name": n.globalName(),
		"plugins": []any{
			map[string]any{
				"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
				"ipam": map[string]any{
					"type": "host-local", "dataDir": n.path("run", "cni"),
					"ranges": [][]map[string]string{{{"subnet": n.podCIDR()}}},
					"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
		},
	}
}

// removeCNIResults deletes what libcni stores about this node's pods. libcni does so itself when a pod ends normally.
// There is one file for each network, and those for loopback have the same names in all clusters, so this selects by the
// pod's number.
func (n node) removeCNIResults() {
	const results = "/var/lib/cni/results/"
	pods, _ := filepath.Glob(n.path("data", "containerd", "io.containerd.grpc.v1.cri", "sandboxes", "*")) // the only error is a bad pattern
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
