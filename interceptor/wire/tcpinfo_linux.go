// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import "golang.org/x/sys/unix"

// pollHalfClosed is poll's event for a connection whose other side has ended its direction.
const pollHalfClosed = unix.POLLRDHUP

// Delivered returns how many bytes of what was sent on s its other side's kernel has acknowledged, or false if that
// cannot be known. Bytes that were never acknowledged never reached the app, so that a request of which that is true can
// be sent again, whatever it is.
//
// Linux counts the SYN of the side that opened the connection, which we are, among the bytes (tcp_info.tcpi_bytes_acked is 1 once it
// is established).
func (s *Sock) Delivered() (int64, bool) {
	var info *unix.TCPInfo
	var failed error
	err := s.raw.Control(func(fd uintptr) {
		info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if err != nil || failed != nil {
		return 0, false
	}
	return max(0, int64(info.Bytes_acked)-1), true //nolint:gosec // far below 2^63
}
