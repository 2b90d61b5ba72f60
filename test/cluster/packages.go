// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// debianPackages are the packages that Go's module proxy does not have, by the program that each is needed for. A package
// is installed only if its program is missing: containerd and runc may come from elsewhere, and must not be replaced.
func debianPackages() []struct{ program, name string } {
	return []struct{ program, name string }{
		{containerdBinary, "containerd"},
		{"runc", "runc"},
		{cniPlugins + "/bridge", "containernetworking-plugins"},
		{"ip", "iproute2"},
		{"nft", "nftables"},      // by kube-proxy
		{"iptables", "iptables"}, // by the CNI plugin for host ports
		{"conntrack", "conntrack"},
	}
}

const (
	containerdBinary = "/usr/bin/containerd"
	cniPlugins       = "/usr/lib/cni"
)

// checkMachine reports the first thing that the machine lacks, before anything is changed.
func (c *cluster) checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("not root: a node mounts file systems and makes network namespaces; run this as root")
	}
	if !exists("/proc/self/ns/net") {
		return errors.New("this kernel has no network namespaces (CONFIG_NET_NS)")
	}
	for _, need := range []struct{ path, word, module string }{
		{"/proc/filesystems", "overlay", "overlay"},
		{"/proc/sys/net/bridge/bridge-nf-call-iptables", "", "br_netfilter"},
	} {
		if !fileHas(need.path, need.word) {
			_ = exec.Command("modprobe", need.module).Run() // it may be built in, or missing altogether: check again
		}
		if !fileHas(need.path, need.word) {
			return fmt.Errorf("this kernel has no %s: load the module, or use a kernel that has it", need.module)
		}
	}
	if _, _, err := cgroupMounts(); err != nil {
		return err
	}
	return c.checkStateFolder()
}

func fileHas(path, word string) bool {
	b, err := os.ReadFile(path)
	return err == nil && strings.Contains(string(b), word)
}

func (c *cluster) checkStateFolder() error {
	if err := os.MkdirAll(c.cache, 0o755); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(c.cache, &fs); err != nil {
		return err
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("%s is on overlayfs, which containers cannot overlay again: set XDG_CACHE_HOME to a folder on a disk or a tmpfs",
			c.cache)
	}
	return checkSocket(node{c, 1}.containerdSocket())
}

func missingPackages() []string {
	var missing []string
	for _, p := range debianPackages() {
		if _, err := exec.LookPath(p.program); err != nil {
			missing = append(missing, p.name)
		}
	}
	return missing
}

// installPackages installs missing packages from Debian.
func installPackages(ctx context.Context, report *progress) error {
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("%s missing, and this machine has no apt-get to install it", strings.Join(missing, ", "))
	}
	if err := report.long("installing "+strings.Join(missing, " "), func() error { return aptGet(ctx, missing) }); err != nil {
		return fmt.Errorf("installing %s: %w", strings.Join(missing, ", "), err)
	}
	if missing := missingPackages(); len(missing) > 0 {
		return fmt.Errorf("%s missing, although apt-get has installed it", strings.Join(missing, ", "))
	}
	return nil
}

// aptGet installs packages, and fails rather than remove any.
func aptGet(ctx context.Context, packages []string) error {
	for _, args := range [][]string{
		{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends", "--no-remove"}, packages...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=120"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w:\n%s", strings.Join(args, " "), err, lastLines(out, 10))
		}
	}
	return nil
}
