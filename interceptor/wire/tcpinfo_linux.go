// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import "golang.org/x/sys/unix"

// pollHalfClosed is the poll event for a connection whose other side has closed its direction.
const pollHalfClosed = unix.POLLRDHUP

// Delivered returns how many of the bytes sent on s the other side's kernel has acknowledged; false if that is not known. A request
// whose bytes were never acknowledged has never reached the app, so it can always be sent again.
//
// Linux counts the SYN of the side that opened the connection, which is us, as a byte (tcp_info.tcpi_bytes_acked is 1 once the
// connection is established).
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
