//go:build !unix

package forward

import "net"

// newReadable returns a function that does not wait: the read that follows does, with its buffer.
func newReadable(*net.TCPConn) (wait func() error, _ error) {
	return func() error { return nil }, nil
}
