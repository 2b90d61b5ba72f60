// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"
)

func TestPortsOf(t *testing.T) {
	if got, err := portsOf(":9090", "127.0.0.1:8081", "[::]:65535"); err != nil || !slices.Equal(got, []int32{9090, 8081, 65535}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, address := range []string{"", "9090", ":", ":http", ":65536", ":-1"} {
		if got, err := portsOf(":9090", address); err == nil {
			t.Errorf("%q has port %v", address, got)
		}
	}
}
