// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// etcdMemory bounds etcd's data of a large cluster: its database, its log and its snapshots.
const etcdMemory = "8g"

// autoscalerPeriod is 5 s because tests wait for autoscalers. In a large cluster, each HPA then costs as much as it does elsewhere.
func (c *cluster) autoscalerPeriod() string {
	if c.large {
		return "15s"
	}
	return "5s"
}

// mountEtcd puts the data of a large cluster's etcd into memory. `down` unmounts what is below the cluster's folder.
func (c *cluster) mountEtcd() error {
	dir := c.path("data", "etcd")
	if !c.large || exists(dir) { // it has run already
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size="+etcdMemory); err != nil {
		return fmt.Errorf("mounting memory for etcd: %w", err)
	}
	return nil
}
