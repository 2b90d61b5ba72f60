// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"github.com/scale-to-zero/scale-to-zero/interceptor/budget"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// What connections and requests draw from their route's account, besides the buffers of long heads. Each is what the thing takes in
// the process and in the kernel, rounded up: goroutines' stacks, buffers, sockets. An ordinary request draws nothing, because its
// connection has paid for it.
const (
	// ConnectionCost is for a connection without a request. Package listen draws it.
	ConnectionCost = 12 << 10
	// slowCost is for a request that waits for its answer for longer than a tick: the goroutine that watches its client, its buffers and
	// the connection to the pod.
	slowCost = 16 << 10
	// tunnelCost is for a connection that is carried byte by byte: a second goroutine and the connection to the pod.
	tunnelCost = 16 << 10
	// uploadCost is for the goroutine that carries a body.
	uploadCost = 8 << 10
	// http2Cost is for what net/http has for an HTTP/2 connection, and streamCost for what it has for a request.
	http2Cost  = 40 << 10
	streamCost = 16 << 10
	// unreadBody is how much of a body may wait in the kernel while its request is held.
	unreadBody = 64 << 10
)

// grow makes room in c.in, if the route may have the memory. The head is written anew for the pod, so it takes its buffer twice.
func (c *conn) grow() error {
	if size := c.in.Grown(); size > c.in.Size() && !c.draw.Set(max(c.draw.Size(), 2*int64(size))) {
		return c.server.exhausted()
	}
	c.in = c.server.engine.buffers.Grow(c.in)
	return nil
}

// exhausted reports that the route is refused memory, and returns the error.
func (s *Server) exhausted() error {
	s.route.Refused()
	return budget.ErrExhausted
}

// paying has the route pay for what the pod does not take at once.
func (s *Server) paying(up *podConn, err error) (*podConn, error) {
	if err == nil {
		up.Memory = &s.route.Memory
	}
	return up, err
}

// lingerBuffer returns a buffer for bytes that nobody needs. It is large for the rest of a body, which may be long.
func (c *conn) lingerBuffer(body bool) *wire.Buffer {
	c.draw.Set(0)
	return c.server.engine.buffers.Get(body && c.draw.Set(wire.LargeBuffer))
}
