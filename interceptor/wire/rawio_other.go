// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package wire

import (
	"errors"
	"syscall"
)

// read and write use a non-blocking descriptor.
func read(fd uintptr, b []byte) (int, syscall.Errno) { return call(syscall.Read, fd, b) }

func write(fd uintptr, b []byte) (int, syscall.Errno) { return call(syscall.Write, fd, b) }

func call(do func(int, []byte) (int, error), fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, err := do(int(fd), b)
		var errno syscall.Errno
		if err == nil || !errors.As(err, &errno) {
			return n, 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}
