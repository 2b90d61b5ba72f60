// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"strconv"
)

// portsOf returns the ports of addresses.
func portsOf(addresses ...string) ([]int32, error) {
	ports := make([]int32, 0, len(addresses))
	for _, address := range addresses {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("reading address %q: %w", address, err)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("reading the port of address %q: %w", address, err)
		}
		ports = append(ports, int32(n))
	}
	return ports, nil
}
