// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// wirePod is a pod that answers by a script. It records every byte that arrives.
type wirePod struct {
	addr   string
	script func(*wireConn)
	all    sync.WaitGroup
	over   chan struct{} // is closed at the end of the test

	mu    sync.Mutex // protects all below
	conns []*wireConn
	got   bytes.Buffer
	whole []*message
}

// wireConn is a connection that a pod has accepted.
type wireConn struct {
	*net.TCPConn
	r     *bufio.Reader
	pod   *wirePod
	ended chan struct{} // is closed when the other side or the script has ended the connection
	once  sync.Once
}

// newWirePod starts a pod. Each connection is closed when its script returns.
func newWirePod(tb testing.TB, script func(*wireConn)) *wirePod {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &wirePod{addr: l.Addr().String(), script: script, over: make(chan struct{})}
	p.all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := &wireConn{TCPConn: conn.(*net.TCPConn), pod: p, ended: make(chan struct{})}
			c.r = bufio.NewReader(recorder{c})
			p.mu.Lock()
			p.conns = append(p.conns, c)
			p.mu.Unlock()
			p.all.Go(func() {
				defer c.end()
				defer func() { _ = c.Close() }()
				p.script(c)
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		close(p.over)
		p.mu.Lock()
		conns := p.conns
		p.mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
		p.all.Wait()
	})
	return p
}

// recorder records the bytes that are read from a connection.
type recorder struct{ c *wireConn }

func (r recorder) Read(b []byte) (int, error) {
	n, err := r.c.Read(b)
	r.c.pod.mu.Lock()
	defer r.c.pod.mu.Unlock()
	r.c.pod.got.Write(b[:n])
	if err != nil {
		r.c.end()
	}
	return n, err
}

func (c *wireConn) end() { c.once.Do(func() { close(c.ended) }) }

// request reads a request. It counts the request as whole when all of it has arrived.
func (c *wireConn) request() (*message, error) {
	m, err := readHead(c.r)
	if err != nil {
		return nil, err
	}
	if err := readBody(c.r, m, false); err != nil {
		return nil, err
	}
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	c.pod.whole = append(c.pod.whole, m)
	return m, nil
}

// send writes text, unless the other side has gone.
func (c *wireConn) send(text string) { _, _ = io.WriteString(c, text) }

// drain reads to the end.
func (c *wireConn) drain() { _, _ = io.Copy(io.Discard, c.r) }

// await waits for ch, or for the end of the test.
func (c *wireConn) await(ch <-chan struct{}) {
	select {
	case <-ch:
	case <-c.pod.over:
	}
}

// requests returns the requests that have arrived completely.
func (p *wirePod) requests() []*message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*message(nil), p.whole...)
}

// accepted returns all connections so far.
func (p *wirePod) accepted() []*wireConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*wireConn(nil), p.conns...)
}

// received returns everything that has arrived.
func (p *wirePod) received() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got.String()
}

// answering returns a script that answers each whole request until the connection ends.
func answering(f func(*message) string) func(*wireConn) {
	return func(c *wireConn) {
		for {
			m, err := c.request()
			if err != nil {
				return
			}
			c.send(f(m))
		}
	}
}

// always returns a script that gives each whole request the same answer.
func always(text string) func(*wireConn) { return answering(func(*message) string { return text }) }

// ok returns an answer with a body.
func ok(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// wantEnd waits until the other side of c has ended.
func (c *wireConn) wantEnd(t *testing.T) {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(soon):
		t.Error("the pod's connection goes on")
	}
}
