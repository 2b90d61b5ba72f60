// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// chainTimeout bounds the wait for the next app of a chain, which may have to start first.
const chainTimeout = 5 * time.Minute

// chain answers with its name and the answer of the next app, if there is one.
func (s *server) chain(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), chainTimeout)
	defer cancel()
	rest, err := s.callNext(ctx)
	if err != nil {
		http.Error(w, "calling "+s.next+": "+err.Error(), http.StatusBadGateway)
		return
	}
	_, _ = fmt.Fprintln(w, s.name+rest)
}

// callNext calls the next app: an http URL, or tcp://HOST:PORT, which has to answer a line with a line.
func (s *server) callNext(ctx context.Context) (string, error) {
	if s.next == "" {
		return "", nil
	}
	if addr, ok := strings.CutPrefix(s.next, "tcp://"); ok {
		return talk(ctx, addr, s.name)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.next, nil)
	if err != nil {
		return "", fmt.Errorf("making the request: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("sending the request: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", fmt.Errorf("reading the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("it answers %s %q", response.Status, body)
	}
	return " " + strings.TrimSpace(string(body)), nil
}

// talk sends a line, and returns the line that it gets.
func talk(ctx context.Context, addr, line string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", fmt.Errorf("sending: %w", err)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("receiving: %w", err)
	}
	return " " + strings.TrimSpace(answer), nil
}

// speakTCP answers each line of each connection with the app's name, until ctx ends.
func (s *server) speakTCP(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting: %w", err)
		}
		go func() {
			defer func() { _ = conn.Close() }()
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if _, err := fmt.Fprintln(conn, s.name); err != nil {
					return
				}
			}
		}()
	}
}
