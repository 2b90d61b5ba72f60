// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Some things exist once for the whole machine, however many clusters run. This file notes who uses them. The notes are
// in /run because a reboot resets what they are about, and because clusters of different users share them.
const (
	hostDir  = "/run/scale-to-zero"
	hostLock = "/run/scale-to-zero.lock"
)

// kubeletSysctls are the sysctls that a kubelet changes when it starts.
func kubeletSysctls() []string {
	return []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	}
}

// kubeletDirs are folders that a kubelet uses whatever its configuration says: for links to logs and a socket for
// devices.
func kubeletDirs() []string {
	return []string{"/var/log/containers", "/var/lib/kubelet/device-plugins", "/var/lib/kubelet"}
}

// namespacesDir is created, and mounted on itself, by the first `ip netns add` on a machine.
const namespacesDir = "/run/netns"

// A hostState is the state of the machine before the first cluster.
type hostState struct {
	Sysctls map[string]string `json:"sysctls"`
	Made    []string          `json:"made"` // folders that did not exist
}

func (c *cluster) claimFile() string { return filepath.Join(hostDir, "clusters", c.globalName()) }

// checkOwner refuses to touch a cluster of the same name that belongs to another user or another cache folder.
func (c *cluster) checkOwner() error {
	owner := claimant(c.claimFile())
	if owner == "" || owner == c.path() {
		return nil
	}
	return fmt.Errorf("cluster %s exists already, in %s, and names are unique on a machine: use another --name", c.name, owner)
}

// claims counts the clusters on this machine.
func claims() (int, error) {
	files, err := os.ReadDir(filepath.Join(hostDir, "clusters"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	count := 0
	for _, f := range files {
		if claimant(filepath.Join(hostDir, "clusters", f.Name())) != "" {
			count++
		}
	}
	return count, nil
}

// claimant is the folder of the cluster that made a claim. If the folder is gone, the claim no longer counts.
func claimant(claim string) string {
	content, err := os.ReadFile(claim)
	owner := strings.TrimSpace(string(content))
	if err != nil || !exists(owner) {
		return ""
	}
	return owner
}

// claimHost notes that this cluster is about to change the machine. The first cluster also saves the machine's state.
func (c *cluster) claimHost(ctx context.Context) error {
	release, err := lock(ctx, hostLock, "this machine's settings")
	if err != nil {
		return err
	}
	defer release()
	if err := os.MkdirAll(filepath.Join(hostDir, "clusters"), 0o755); err != nil {
		return err
	}
	if !exists(filepath.Join(hostDir, "before.json")) {
		content, err := json.Marshal(readHost("/proc/sys"))
		if err != nil {
			return err
		}
		if _, err := writeFile(filepath.Join(hostDir, "before.json"), content, 0o644); err != nil {
			return err
		}
	}
	_, err = writeFile(c.claimFile(), []byte(c.path()), 0o644)
	return err
}

func readHost(sysctls string) hostState {
	state := hostState{Sysctls: map[string]string{}}
	for _, name := range kubeletSysctls() {
		if value, err := os.ReadFile(filepath.Join(sysctls, name)); err == nil {
			state.Sysctls[name] = strings.TrimSpace(string(value))
		}
	}
	for _, dir := range append(kubeletDirs(), namespacesDir) {
		if !exists(dir) {
			state.Made = append(state.Made, dir)
		}
	}
	return state
}

// releaseHost deletes the note. The last cluster restores the machine.
func (c *cluster) releaseHost(ctx context.Context) error {
	if !exists(hostDir) {
		return nil
	}
	release, err := lock(ctx, hostLock, "this machine's settings")
	if err != nil {
		return err
	}
	defer release()
	if err := os.Remove(c.claimFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if others, err := claims(); err != nil || others > 0 {
		return err
	}
	var before hostState
	content, err := os.ReadFile(filepath.Join(hostDir, "before.json"))
	if err == nil {
		err = json.Unmarshal(content, &before)
	}
	if err == nil {
		err = before.restore()
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) { // `up` was killed before it wrote the state, and so before it changed anything
		return fmt.Errorf("restoring the machine's settings: %w", err)
	}
	return os.RemoveAll(hostDir)
}

func (s hostState) restore() error {
	for name, value := range s.Sysctls {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644); err != nil {
			return err
		}
	}
	for _, dir := range s.Made {
		if dir == "/var/lib/kubelet/device-plugins" { // only the kubelet's socket and a marker file are in there
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		if dir == namespacesDir && isEmpty(dir) { // no other namespace is left
			if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("unmounting %s: %w", dir, err)
			}
		}
		removeIfEmpty(dir)
	}
	return nil
}

func isEmpty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) == 0
}

// removeLogLinks deletes the links that the kubelet makes to its pods' logs.
func (c *cluster) removeLogLinks() {
	links, _ := filepath.Glob("/var/log/containers/*") // the only possible error is a bad pattern
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, c.path()+"/") {
			os.Remove(link)
		}
	}
}
