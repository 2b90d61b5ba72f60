// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"
)

// idleConnections is how many connections are opened to measure the memory of one.
const idleConnections = 2000

// idle measures the memory of connections on which one request was made. The proxy has just been started: a busy one has
// spare memory, in which they would seem to cost nothing.
func idle(ctx context.Context, l *lab, s *server, _ time.Duration) (sample, error) {
	s, err := l.start(ctx, s.name)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	first, err := open(ctx, s.http)
	if err != nil {
		return nil, err
	}
	defer first.Close()
	if err := settle(ctx); err != nil {
		return nil, err
	}
	before, err := s.memory()
	if err != nil {
		return nil, err
	}
	for range idleConnections {
		conn, err := open(ctx, s.http)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
	}
	if err := settle(ctx); err != nil {
		return nil, err
	}
	after, err := s.memory()
	if err != nil {
		return nil, err
	}
	return sample{"memory": float64(after-before) / idleConnections / 1000}, nil
}

// open connects and makes one request.
func open(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("opening a connection: %w", err)
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // the caller closes it
	_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: " + addr + "\r\n\r\n"))
	if err == nil {
		err = receiveBody(bufio.NewReader(conn), make([]byte, 512), len(smallBody()))
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("using a connection: %w", err)
	}
	return conn, nil
}

// settle lets a proxy clean up after the last request.
func settle(ctx context.Context) error {
	select {
	case <-time.After(300 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
