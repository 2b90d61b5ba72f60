//go:build unix

package forward

import (
	"errors"
	"net"
	"syscall"
)

// newReadable returns a function that waits until conn has something to read, its end included, so that a connection on
// which nothing happens needs no buffer meanwhile.
func newReadable(conn *net.TCPConn) (wait func() error, _ error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var b [1]byte
	ready := func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		return !errors.Is(err, syscall.EAGAIN)
	}
	return func() error { return raw.Read(ready) }, nil
}
