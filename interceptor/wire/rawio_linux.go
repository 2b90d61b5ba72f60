// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"syscall"
	"unsafe"
)

// read and write use a non-blocking descriptor. They bypass Go's scheduler, because these calls never wait. The scheduler would
// prepare for a long call, and take the processor away if the call is merely interrupted.
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
