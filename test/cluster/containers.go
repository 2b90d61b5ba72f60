// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// cri connects to the container runtime as the kubelet does. The unix socket works from any namespace.
func (n node) cri() (cri.RuntimeServiceClient, func() error, error) {
	conn, err := grpc.NewClient("unix://"+n.containerdSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to containerd: %w", err)
	}
	return cri.NewRuntimeServiceClient(conn), conn.Close, nil
}

func (n node) containerdReady(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, closeConn, err := n.cri()
	if err != nil {
		return false
	}
	defer closeConn()
	_, err = client.Version(ctx, &cri.VersionRequest{})
	return err == nil
}

// stopPods stops every pod through containerd, which then also removes its network and mounts.
func (n node) stopPods(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	client, closeConn, err := n.cri()
	if err != nil {
		return err
	}
	defer closeConn()
	list, err := client.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	results := make(chan error, len(list.GetItems()))
	for _, pod := range list.GetItems() {
		go func() {
			_, stopped := client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.GetId()})
			_, removed := client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.GetId()})
			results <- errors.Join(stopped, removed)
		}()
	}
	var errs []error
	for range list.GetItems() {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

func (n node) ctr(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"--address", n.containerdSocket(), "--namespace", "k8s.io"}, args...)
	out, err := exec.CommandContext(ctx, "ctr", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// load imports images into every node. There is no registry to pull them from.
func (c *cluster) load(ctx context.Context, files ...string) error {
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("loading an image: %w", err)
		}
	}
	return c.each(func(n node) error { return n.load(ctx, files...) })
}

func (n node) load(ctx context.Context, files ...string) error {
	if n.require("containerd") != nil {
		return fmt.Errorf("%s of cluster %s is not up: run `up` first", n.name(), n.cluster.name)
	}
	for _, file := range files {
		if _, err := n.ctr(ctx, "images", "import", file); err != nil {
			return fmt.Errorf("loading %s into %s: %w", file, n.name(), err)
		}
	}
	return nil
}

// loadOnce loads images of our own into the nodes that do not have them.
func (c *cluster) loadOnce(ctx context.Context, images ...bundledImage) error {
	return c.each(func(n node) error {
		out, err := n.ctr(ctx, "images", "ls", "-q")
		if err != nil {
			return fmt.Errorf("listing images: %w", err)
		}
		for _, image := range images {
			if !strings.Contains("\n"+out, "\n"+image.name+"\n") {
				if err := n.load(ctx, c.imageFile(image)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// removeShimSockets deletes the shims' sockets, which containerd keeps in one folder for the whole machine. A killed shim
// leaves its socket behind; the shim's state has the address.
func (n node) removeShimSockets() {
	// The only possible error is a bad pattern.
	files, _ := filepath.Glob(n.path("run", "containerd", "io.containerd.runtime.v2.task", "k8s.io", "*", "address"))
	for _, file := range files {
		if address, err := os.ReadFile(file); err == nil {
			os.Remove(strings.TrimPrefix(strings.TrimSpace(string(address)), "unix://"))
		}
	}
	removeIfEmpty("/run/containerd/s", "/run/containerd")
}
