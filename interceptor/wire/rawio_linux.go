// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"syscall"
	"unsafe"
)

// read and write read and write a descriptor that does not block. They bypass Go's scheduler: it would prepare for
// a call that lasts, and take the processor away from one that is merely interrupted, for a call that never waits.
func read(fd uintptr, b []byte) (int, syscall.Errno) { return call(syscall.SYS_READ, fd, b) }

func write(fd uintptr, b []byte) (int, syscall.Errno) { return call(syscall.SYS_WRITE, fd, b) }

func call(number, fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		first := unsafe.Pointer(unsafe.SliceData(b)) //nolint:gosec // as package syscall does
		n, _, errno := syscall.RawSyscall(number, fd, uintptr(first), uintptr(len(b)))
		if errno == 0 {
			return int(n), 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}
