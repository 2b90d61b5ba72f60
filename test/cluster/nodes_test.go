// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// testNodes is a cluster of three nodes.
func testNodes(t *testing.T) (*cluster, []node) {
	t.Helper()
	c := testCluster(t)
	if err := c.prepare(3); err != nil {
		t.Fatal(err)
	}
	nodes := c.nodes()
	if len(nodes) != 3 || nodes[2].name() != "node3" {
		t.Fatalf("nodes %v", nodes)
	}
	return c, nodes
}

// Nodes must differ in everything that they could collide in, and those of a cluster of one node have its names.
func TestNodesAreKeptApart(t *testing.T) {
	one := testCluster(t)
	alone := node{one, 1}
	if alone.globalName() != one.globalName() || alone.path("run") != one.path("run") || alone.named("kubelet") != "kubelet" {
		t.Errorf("a single node has names of its own: %s, %s, %s", alone.globalName(), alone.path("run"), alone.named("kubelet"))
	}
	if got := alone.podCIDR(); got != podCIDR {
		t.Errorf("a single node has %s of %s", got, podCIDR)
	}
	c, nodes := testNodes(t)
	seen := map[string]string{}
	files := map[string][]byte{}
	for _, n := range nodes {
		for what, is := range map[string]string{
			"name": n.name(), "address": n.ip(), "hardware address": n.mac().String(), "zone": n.zone(), "pods": n.podCIDR(),
			"namespace": string(n.namespace()), "socket": n.containerdSocket(), "log": n.log("kubelet"), "daemons": fmt.Sprint(n.daemons()),
		} {
			if other := seen[what+is]; other != "" {
				t.Errorf("%s and %s have the same %s: %s", other, n.name(), what, is)
			}
			seen[what+is] = n.name()
		}
		if _, all, _ := net.ParseCIDR(podCIDR); true {
			if ip, _, err := net.ParseCIDR(n.podCIDR()); err != nil || !all.Contains(ip) {
				t.Errorf("%s has %s, which is not in %s", n.name(), n.podCIDR(), all)
			}
		}
		if err := n.writeConfiguration(); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"containerd.toml", "kubelet.yaml", "kube-proxy.yaml", "cni/10-scale-to-zero.conflist"} {
			content, err := os.ReadFile(n.path("conf", file))
			if err != nil {
				t.Fatal(err)
			}
			if n.number > 1 && (bytes.Equal(content, files[file]) || bytes.Contains(content, []byte(c.path("run")+"/"))) {
				t.Errorf("%s of %s is for node1:\n%s", file, n.name(), content)
			}
			files[file] = content
		}
	}
}

func TestCheckNodes(t *testing.T) {
	for name, tc := range map[string]struct {
		have, want int
		up         bool
		get        int
		fails      string
	}{
		"a new cluster":                 {have: 1, get: 1},
		"a new cluster of three":        {have: 1, want: 3, get: 3},
		"as many as there are":          {have: 3, up: true, get: 3},
		"the same number":               {have: 3, want: 3, up: true, get: 3},
		"more than there are":           {have: 1, want: 3, up: true, fails: "has 1 nodes"},
		"fewer than there are":          {have: 3, want: 1, up: true, fails: "has 3 nodes"},
		"more, after an `up` cut short": {have: 2, want: 3, get: 3},
		"one, after an `up` of three":   {have: 2, want: 1, fails: "has 2 nodes"},
		"too many":                      {have: 1, want: 10, fails: "allowed is 1 to 9"},
		"fewer than none":               {have: 1, want: -1, fails: "allowed is 1 to 9"},
	} {
		t.Run(name, func(t *testing.T) {
			c := testCluster(t)
			if err := c.prepare(tc.have); err != nil {
				t.Fatal(err)
			}
			if tc.up {
				writeFiles(t, c.path(), map[string]string{"pki/ca.crt": ""})
			}
			got, err := c.checkNodes(tc.want)
			if tc.fails == "" && (err != nil || got != tc.get) || tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)) {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
}

func TestFindNode(t *testing.T) {
	c, _ := testNodes(t)
	if n, err := c.findNode("node2"); err != nil || n.number != 2 {
		t.Errorf("got %d, %v", n.number, err)
	}
	for _, name := range []string{"node4", "node", "2", ""} {
		if _, err := c.findNode(name); err == nil || !strings.Contains(err.Error(), "node1 to node3") {
			t.Errorf("%q: %v, want the names that there are", name, err)
		}
	}
	if err := (node{c, 1}).fail(t.Context()); err == nil || !strings.Contains(err.Error(), "control plane") {
		t.Errorf("stopping node1: %v", err)
	}
}

// The kubelet's certificate is for its own node, whose address the API server verifies.
func TestPKIOfNodes(t *testing.T) {
	c, nodes := testNodes(t)
	if err := c.ensurePKI(); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, c.pki("ca.crt")))
	for _, n := range nodes {
		cert := certificate(t, n.pki("kubelet-server", ".crt"))
		for _, other := range nodes {
			_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: other.ip()})
			if (err == nil) != (n.number == other.number) {
				t.Errorf("the certificate of %s for %s: %v", n.name(), other.ip(), err)
			}
		}
		for _, user := range []string{"kubelet", "kube-proxy", "admin"} {
			content, err := os.ReadFile(n.pki(user, ".kubeconfig"))
			if err != nil || !strings.Contains(string(content), n.apiServer()) {
				t.Errorf("%s of %s does not name %s: %v", user, n.name(), n.apiServer(), err)
			}
		}
	}
}

// Nodes reach each other's pods until one is unplugged, and `down` finds the namespaces of nodes whose folder is gone.
func TestNodesNetwork(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and ip")
	}
	c, nodes := testNodes(t)
	c.name = fmt.Sprintf("test-%d", os.Getpid())
	if err := c.prepare(3); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range c.globalNames() {
			if err := namespace(name).delete(); err != nil {
				t.Error(err)
			}
		}
	})
	for range 2 { // every step can be repeated
		if err := c.ensureNetwork(); err != nil {
			t.Fatal(err)
		}
	}
	reaches := func(from, to node) bool {
		out, err := exec.Command("ip", "netns", "exec", string(from.namespace()), "ip", "neigh", "get", to.ip(), "dev", nodeLink).CombinedOutput()
		if err != nil || !strings.Contains(string(out), to.mac().String()) {
			t.Errorf("%s does not know %s: %v: %s", from.name(), to.name(), err, out)
		}
		return connects(t, from, to)
	}
	for _, from := range nodes {
		for _, to := range nodes {
			if from.number != to.number && !reaches(from, to) {
				t.Errorf("%s does not reach %s", from.name(), to.name())
			}
		}
	}
	if err := nodes[1].unplug(); err != nil {
		t.Fatal(err)
	}
	if connects(t, nodes[0], nodes[1]) || !connects(t, nodes[0], nodes[2]) {
		t.Error("want node2 out of reach, and node3 not")
	}
	if err := os.RemoveAll(c.path()); err != nil {
		t.Fatal(err)
	}
	want := []string{c.globalName(), c.globalName() + ".bridge", c.globalName() + ".node2", c.globalName() + ".node3"}
	if got := c.globalNames(); !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
	if left, _ := filepath.Glob(namespacesDir + "/" + c.globalName() + "*"); len(left) != len(want) {
		t.Errorf("namespaces %v", left)
	}
}

// connects sends a datagram from one node to the other's pods' address and reports whether it arrives.
func connects(t *testing.T, from, to node) bool {
	t.Helper()
	address := strings.TrimSuffix(to.podCIDR(), "0/24") + "1"
	var server net.PacketConn
	if err := to.namespace().do(func() (err error) {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(address + "/32")
		if err != nil {
			return err
		}
		if err := netlink.AddrReplace(lo, addr); err != nil {
			return err
		}
		server, err = net.ListenPacket("udp", address+":0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := from.namespace().dial(t.Context(), "udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := server.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _, err = server.ReadFrom(make([]byte, 10))
	return err == nil
}
