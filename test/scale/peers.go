// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// peerBytes returns how many bytes a process has sent to and received from the address over its connections, since they were opened.
func peerBytes(ctx context.Context, p part, peer string) (float64, error) {
	out, err := exec.CommandContext(ctx, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", p.pid), "ss", "-tinHO", "state", "established",
		"dst", peer).Output()
	if err != nil {
		return 0, fmt.Errorf("asking ss for the connections of %s: %w", p.name, err)
	}
	return sumBytes(string(out)), nil
}

// sumBytes adds up what the connections in the output of ss have sent and received.
func sumBytes(out string) float64 {
	total := 0.0
	for field := range strings.FieldsSeq(out) {
		name, value, _ := strings.Cut(field, ":")
		if name != "bytes_sent" && name != "bytes_received" {
			continue
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			total += n
		}
	}
	return total
}
