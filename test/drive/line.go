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
	"sync"
	"time"
)

// requestTimeout is how long a request may take, the wake included.
const requestTimeout = 90 * time.Second

// maxIdle is how many idle connections to one app are kept.
const maxIdle = 4

// errUnanswered says that a connection ended before the first byte of an answer.
var errUnanswered = errors.New("the connection ended without an answer")

// line is a connection to an app's Service. Unlike net/http's client, it does not retry: such retries would hide losses.
type line struct {
	conn   net.Conn
	r      *bufio.Reader
	opened time.Time
}

func dial(ctx context.Context, address string) (*line, error) {
	opened := time.Now()
	conn, err := (&net.Dialer{Timeout: requestTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	return &line{conn, bufio.NewReader(conn), opened}, nil
}

// closed reports whether the server has closed the idle connection.
func (l *line) closed() bool {
	if l.conn.SetReadDeadline(time.Now().Add(time.Millisecond)) != nil {
		return true
	}
	_, err := l.r.Peek(1)
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

// exchange sends a request and reads the whole answer. It reports whether the connection can be used again.
func (l *line) exchange(r *http.Request) (a answer, keep bool, err error) {
	if err := l.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return a, false, fmt.Errorf("setting a deadline: %w", err)
	}
	written := make(chan error, 1)
	go func() { written <- r.Write(l.conn) }() // the answer may come before everything is sent
	defer func() {
		if err != nil {
			_ = l.conn.Close() // ends the writing
		}
		if failed := <-written; err == nil && failed != nil {
			keep = false // what is wrong with an answer to half a request shows in the answer
		}
	}()
	if _, err := l.r.Peek(1); err != nil {
		return a, false, fmt.Errorf("%w: %w", errUnanswered, err)
	}
	response, err := http.ReadResponse(l.r, r)
	for err == nil && response.StatusCode < http.StatusOK {
		response, err = http.ReadResponse(l.r, r)
	}
	if err != nil {
		return a, false, fmt.Errorf("reading the answer: %w", err)
	}
	defer response.Body.Close()
	a = answer{status: response.StatusCode, header: response.Header}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		return a, false, fmt.Errorf("reading the answer after its first %d bytes: %w", len(a.body), err)
	}
	if response.Close {
		_ = l.conn.Close() // nobody will read the rest that is still being written
	}
	return a, !response.Close && !r.Close, nil
}

// lines are the idle connections to one Service.
type lines struct {
	address string

	mu     sync.Mutex // protects all below
	idle   []*line    // the one that has been idle longest comes first
	closed int        // how many of the connections taken had been closed by the server
}

// take returns the connection that has been idle longest if one is to be reused, or a new one.
func (p *lines) take(ctx context.Context, reuse bool) (l *line, reused bool, err error) {
	for reuse {
		if l = p.pop(); l == nil {
			break
		}
		if !l.closed() {
			return l, true, nil
		}
		_ = l.conn.Close()
		p.mu.Lock()
		p.closed++
		p.mu.Unlock()
	}
	l, err = dial(ctx, p.address)
	return l, false, err
}

func (p *lines) pop() *line {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil
	}
	l := p.idle[0]
	p.idle = p.idle[1:]
	return l
}

// put keeps l for another request.
func (p *lines) put(l *line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.idle = append(p.idle, l); len(p.idle) > maxIdle {
		_ = p.idle[0].conn.Close()
		p.idle = p.idle[1:]
	}
}

// closedIdle returns how many idle connections the server had closed.
func (p *lines) closedIdle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}
