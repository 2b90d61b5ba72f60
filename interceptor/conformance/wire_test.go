// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// soon is how long tests wait for something that is not late even on a busy machine, if waiting longer would make every failure slow.
const soon = 5 * time.Second

// message is an HTTP/1 request or answer as it was on the wire. The tests read it with their own code, so that nothing is
// canonicalized or forgiven on the way.
type message struct {
	start    string   // the request line or status line
	lines    []string // the header lines, in their order and case
	body     string   // without the framing
	chunked  bool
	trailers []string
}

// values returns the values of a header, whatever its case.
func (m *message) values(name string) []string { return valuesIn(m.lines, name) }

func valuesIn(lines []string, name string) []string {
	var values []string
	for _, line := range lines {
		if n, v, _ := strings.Cut(line, ":"); strings.EqualFold(n, name) {
			values = append(values, strings.Trim(v, " \t"))
		}
	}
	return values
}

// value returns the only value of a header. If there are several, the result says so.
func (m *message) value(name string) string {
	v := m.values(name)
	switch len(v) {
	case 0:
		return ""
	case 1:
		return v[0]
	}
	return fmt.Sprintf("several: %q", v)
}

// without returns the header lines except for those with these names.
func (m *message) without(names ...string) []string {
	lines := []string{}
	for _, line := range m.lines {
		keep := true
		for _, name := range names {
			keep = keep && len(valuesIn([]string{line}, name)) == 0
		}
		if keep {
			lines = append(lines, line)
		}
	}
	return lines
}

// status returns the status code of an answer.
func (m *message) status() int {
	_, rest, _ := strings.Cut(m.start, " ")
	code, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(code)
	if err != nil {
		return -1
	}
	return n
}

// path returns the target of a request.
func (m *message) path() string {
	_, rest, _ := strings.Cut(m.start, " ")
	target, _, _ := strings.Cut(rest, " ")
	return target
}

// readLine reads one line with the line end that HTTP demands.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		if errors.Is(err, io.EOF) && line != "" {
			err = io.ErrUnexpectedEOF
		}
		return line, err
	}
	line, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		return line, fmt.Errorf("line %q ends without CRLF", line)
	}
	return line, nil
}

// readHead reads up to the empty line.
func readHead(r *bufio.Reader) (*message, error) {
	start, err := readLine(r)
	if err != nil {
		return nil, err
	}
	m := &message{start: start}
	m.lines, err = readFields(r)
	return m, err
}

func readFields(r *bufio.Reader) ([]string, error) {
	var lines []string
	for {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil || line == "" {
			return lines, err
		}
		lines = append(lines, line)
	}
}

// readBody reads the body that m announces. A body without a length ends with the connection if untilClose is set, and otherwise is
// empty. m keeps the bytes before an error.
func readBody(r *bufio.Reader, m *message, untilClose bool) error {
	if te := m.values("Transfer-Encoding"); len(te) > 0 {
		m.chunked = true
		return readChunks(r, m)
	}
	if length := m.value("Content-Length"); length != "" {
		n, err := strconv.Atoi(length)
		if err != nil {
			return err
		}
		b := make([]byte, n)
		got, err := io.ReadFull(r, b)
		m.body = string(b[:got])
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if !untilClose {
		return nil
	}
	b, err := io.ReadAll(r)
	m.body = string(b)
	return err
}

func readChunks(r *bufio.Reader, m *message) error {
	for {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(size, 16, 31)
		if err != nil {
			return err
		}
		if n == 0 {
			m.trailers, err = readFields(r)
			return err
		}
		b := make([]byte, n+2)
		got, err := io.ReadFull(r, b)
		m.body += string(b[:min(got, int(n))])
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		if end := string(b[n:]); end != "\r\n" {
			return fmt.Errorf("chunk ends with %q", end)
		}
	}
}

// serving starts an interceptor for a route with these pods.
func serving(t *testing.T, protocol string, addrs ...string) (*node, int32) {
	t.Helper()
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	n.set(unpublished(service(listen, protocol, addrs...)))
	n.synced()
	n.waitReady()
	return n, listen
}

// before starts an interceptor in front of a scripted pod.
func before(t *testing.T, script func(*wireConn)) (*wirePod, int32) {
	t.Helper()
	p := newWirePod(t, script)
	_, listen := serving(t, api.ProtocolAuto, p.addr)
	return p, listen
}

// wireClient is a client that writes and reads bytes.
type wireClient struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func connect(tb testing.TB, listen int32) *wireClient {
	tb.Helper()
	conn := dial(tb, listen)
	return &wireClient{conn, tb, bufio.NewReader(conn)}
}

func (c *wireClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatalf("sending %.60q: %v", text, err)
	}
}

// head reads the head of an answer.
func (c *wireClient) head() *message {
	c.t.Helper()
	m, err := readHead(c.r)
	if err != nil {
		c.t.Fatalf("reading an answer's head: %v", err)
	}
	return m
}

// answer reads a whole answer to a request that was not HEAD.
func (c *wireClient) answer() *message {
	c.t.Helper()
	m := c.head()
	if code := m.status(); code < 200 || code == 204 || code == 304 {
		return m
	}
	if err := readBody(c.r, m, true); err != nil {
		c.t.Fatalf("reading the body after %q: %v; got %.100q", m.start, err, m.body)
	}
	return m
}

// want reads a whole answer and compares it.
func (c *wireClient) want(status int, body string) *message {
	c.t.Helper()
	m := c.answer()
	if m.status() != status || m.body != body {
		c.t.Errorf("got %q with %.100q, want %d with %.100q", m.start, m.body, status, body)
	}
	return m
}

// reads reads as many bytes as want has, and compares them.
func (c *wireClient) reads(want string) {
	c.t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c.r, b); err != nil || string(b) != want {
		c.t.Fatalf("read %q, %v; want %q", b[:n], err, want)
	}
}

// ends checks that the other side has closed without another byte.
func (c *wireClient) ends() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(soon))
	if b, err := c.r.Peek(1); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("the connection goes on with %q, %v; want its end", b, err)
	}
}

// idle waits until nothing is counted any more: no request of the target, and no use of a pod.
func (n *node) idle() {
	n.t.Helper()
	i := n.seen()
	counts := func() string {
		text := fmt.Sprintf("in use %d", i.InUse())
		for _, target := range i.Targets() {
			text += fmt.Sprintf(", pending %d, held %d", target.Pending(), target.Held())
		}
		return text
	}
	end := time.Now().Add(soon)
	for counts() != "in use 0, pending 0, held 0" {
		if time.Now().After(end) {
			n.t.Errorf("still counting: %s", counts())
			return
		}
		<-time.After(2 * time.Millisecond)
	}
}

// holds waits until that many requests are held.
func (n *node) holds(count int) {
	n.t.Helper()
	i := n.seen()
	eventually(n.t, fmt.Sprintf("holding %d", count), func() bool {
		var held int64
		for _, target := range i.Targets() {
			held += target.Held()
		}
		return held == int64(count)
	})
}

// wokenOnce waits until the first request has woken the app; the request is held a moment earlier. No other request wakes the app.
func (n *node) wokenOnce() {
	n.t.Helper()
	eventually(n.t, "woken", func() bool { return len(n.events()) > 0 })
	if got := n.events(); len(got) != 1 {
		n.t.Errorf("woken by %v", got)
	}
}
