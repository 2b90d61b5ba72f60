// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// serve is a pod of the test. It accepts connections, or makes one. Nobody in it is root for the node: its packets come from a link.
func serve() {
	address, connects := strings.CutPrefix(os.Getenv(asServer), "connect ")
	if connects {
		conn, err := net.DialTimeout("tcp", address, 700*time.Millisecond)
		if err != nil {
			os.Exit(1)
		}
		_ = conn.Close()
		return
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}
