// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// heldRequests is how many requests are sent to a sleeping app: as many as one route holds.
const heldRequests = 10000

// heldFor is the time limit for them to arrive, and to be answered.
const heldFor = time.Minute

// held measures the memory of requests that are held until there is a pod, and checks that each is answered then. For a
// proxy that cannot hold requests, it measures connections that wait for the client.
func held(ctx context.Context, l *lab, s *server, d time.Duration) (sample, error) {
	if kindOf(s.name) != ours {
		return idle(ctx, l, s, d)
	}
	s, err := l.start(ctx, s.name)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	if err := s.tell(ctx, "asleep"); err != nil {
		return nil, err
	}
	if err := settle(ctx); err != nil {
		return nil, err
	}
	before, err := s.memory()
	if err != nil {
		return nil, err
	}
	conns := make([]net.Conn, 0, heldRequests)
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for range heldRequests {
		conn, err := send(ctx, s.http)
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
	}
	if err := s.await(ctx, func() error { return s.holds(ctx, heldRequests) }); err != nil {
		return nil, err
	}
	after, err := s.memory()
	if err != nil {
		return nil, err
	}
	if err := s.tell(ctx, "awake"); err != nil {
		return nil, err
	}
	for i, conn := range conns {
		if err := receiveBody(bufio.NewReader(conn), make([]byte, 512), len(smallBody())); err != nil {
			return nil, fmt.Errorf("request %d of %d that were held: %w", i+1, heldRequests, err)
		}
	}
	return sample{"memory": float64(after-before) / heldRequests / 1000}, nil
}

// send connects and sends a request.
func send(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("opening a connection: %w", err)
	}
	_ = conn.SetDeadline(time.Now().Add(heldFor)) // the caller closes it
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: " + addr + "\r\n\r\n")); err != nil {
		conn.Close()
		return nil, fmt.Errorf("sending a request: %w", err)
	}
	return conn, nil
}

// tell makes our interceptor see the app as asleep or awake.
func (s *server) tell(ctx context.Context, what string) error {
	_, err := ask(ctx, "http://"+s.profile+"/"+what)
	return err
}

// holds returns an error unless our interceptor reports n held requests.
func (s *server) holds(ctx context.Context, n int) error {
	metrics, err := ask(ctx, "http://"+s.health+"/metrics")
	if err != nil {
		return err
	}
	want := fmt.Sprintf("scale_to_zero_held_requests{namespace=\"bench\",workload=\"Deployment/web\"} %d\n", n)
	if !strings.Contains(metrics, want) {
		return fmt.Errorf("%q is missing in what it says of itself", want)
	}
	return nil
}

func ask(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("asking the interceptor: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("asking the interceptor at %s: %s: %w", url, resp.Status, err)
	}
	return string(body), nil
}
