// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// These are chunks that two readers could read differently. The head may already have been forwarded when such a chunk is seen. But
// the pod must never get what looks like a whole request: its connection ends first.
func TestSmugglingByChunks(t *testing.T) {
	p := newWirePod(t, always(ok("fine")))
	_, listen := serving(t, api.ProtocolHTTP, p.addr)
	const end = "0\r\n\r\n"
	for name, tc := range map[string]struct {
		body string
		over bool // whether the client closes its side, because the body could go on
	}{
		"size negative":             {"-5\r\nhello\r\n" + end, false},
		"size with plus":            {"+5\r\nhello\r\n" + end, false},
		"size empty":                {"\r\nhello\r\n" + end, false},
		"size empty, extension":     {";a=b\r\nhello\r\n" + end, false},
		"size with 0x":              {"0x5\r\nhello\r\n" + end, false},
		"size with h":               {"5h\r\nhello\r\n" + end, false},
		"size with underscore":      {"0_5\r\nhello\r\n" + end, false},
		"size with other digits":    {"５\r\nhello\r\n" + end, false},
		"size that wraps to 5":      {"10000000000000005\r\nhello\r\n" + end, false},
		"size that wraps to 0":      {"10000000000000000\r\n\r\n", false},
		"size of 32 digits":         {strings.Repeat("f", 32) + "\r\nhello\r\n" + end, false},
		"size beyond 63 bits":       {"8000000000000005\r\nhello\r\n" + end, true},
		"size of 64 bits":           {"ffffffffffffffff\r\nhello\r\n" + end, true},
		"space before the size":     {" 5\r\nhello\r\n" + end, false},
		"tab before the size":       {"\t5\r\nhello\r\n" + end, false},
		"space in the size":         {"0 5\r\nhello\r\n" + end, false},
		"LF after a space":          {"5 \nhello\r\n" + end, false},
		"CR after a space":          {"5 \rhello\r\n" + end, false},
		"size after a space":        {"5 5\r\nhello\r\n" + end, false},
		"vertical tab after size":   {"5\x0b\r\nhello\r\n" + end, false},
		"no-break space after size": {"5\xa0\r\nhello\r\n" + end, false},
		"endless space":             {"5" + strings.Repeat(" ", 1<<20) + "\r\nhello\r\n" + end, false},
		"NUL after the size":        {"5\x00\r\nhello\r\n" + end, false},
		"comma after the size":      {"5,\r\nhello\r\n" + end, false},
		"LF after the size":         {"5\nhello\r\n" + end, false},
		"CR after the size":         {"5\rhello\r\n" + end, false},
		"CR CR LF after the size":   {"5\r\r\nhello\r\n" + end, false},
		"LF in the extension":       {"5;a=\nb\r\nhello\r\n" + end, false},
		"LF ends the extension":     {"5;a\nhello\r\n" + end, false},
		"CR in the extension":       {"5;a=\rb\r\nhello\r\n" + end, false},
		"CRLF in quotes":            {"5;a=\"\r\nhello\r\n\"\r\n" + end, false},
		"NUL in the extension":      {"5;a=\x00b\r\nhello\r\n" + end, false},
		"endless extension":         {"5;a=" + strings.Repeat("b", 1<<20) + "\r\nhello\r\n" + end, false},
		"endless size":              {strings.Repeat("0", 1<<20) + "5\r\nhello\r\n" + end, false},
		"data longer than the size": {"3\r\nhello\r\n" + end, false},
		"data shorter":              {"8\r\nhello\r\n" + end, false},
		"nothing after the data":    {"5\r\nhello" + end, false},
		"LF after the data":         {"5\r\nhello\n" + end, false},
		"CR after the data":         {"5\r\nhello\r" + end, false},
		"two lines after the data":  {"5\r\nhello\r\n\r\n" + end, false},
		"LF after the last size":    {"5\r\nhello\r\n0\n\r\n", false},
		"LF at the end":             {"5\r\nhello\r\n0\r\n\n", false},
		"CR at the end":             {"5\r\nhello\r\n0\r\n\rGET", false},
		"trailer without colon":     {"5\r\nhello\r\n0\r\nX\r\n\r\n", false},
		"trailer without name":      {"5\r\nhello\r\n0\r\n: x\r\n\r\n", false},
		"trailer, space and colon":  {"5\r\nhello\r\n0\r\nX : y\r\n\r\n", false},
		"trailer, folded":           {"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", false},
		"trailer, LF":               {"5\r\nhello\r\n0\r\nX: y\n\r\n", false},
		"trailer, CR":               {"5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n", false},
		"trailer, NUL":              {"5\r\nhello\r\n0\r\nX: \x00\r\n\r\n", false},
		"trailers, endless":         {"5\r\nhello\r\n0\r\n" + strings.Repeat("X: 0123456789\r\n", 2<<20/15) + "\r\n", false},
		"end in a size":             {"5", true},
		"end in the data":           {"5\r\nhel", true},
		"end after the data":        {"5\r\nhello\r\n", true},
		"end in the last chunk":     {"5\r\nhello\r\n0\r\n", true},
		"end in a trailer":          {"5\r\nhello\r\n0\r\nX: y", true},
	} {
		t.Run(name, func(t *testing.T) {
			whole, seen, bytesSeen := len(p.requests()), len(p.accepted()), len(p.received())
			bytes := post("Transfer-Encoding: chunked\r\n", tc.body)
			if !tc.over {
				bytes += smuggled
			}
			refusedInBody(t, listen, bytes, tc.over)
			if got := p.requests()[whole:]; len(got) > 0 {
				t.Errorf("the pod received %q with %.60q as a whole", got[0].start, got[0].body)
			}
			for _, c := range p.accepted()[seen:] {
				c.wantEnd(t)
			}
			if strings.Contains(p.received()[bytesSeen:], "smuggled") {
				t.Error("the pod received what came behind the bad request")
			}
		})
	}
}

// refusedInBody sends bytes and expects 400 or nothing, and the end of the connection. A client that has closed its side in the
// middle may get any error.
func refusedInBody(t *testing.T, listen int32, bytes string, over bool) {
	t.Helper()
	c := connect(t, listen)
	_ = c.SetReadDeadline(time.Now().Add(soon))
	go func() {
		_, _ = io.WriteString(c, bytes)
		if over {
			_ = c.CloseWrite()
		}
	}()
	got, err := io.ReadAll(c.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection was not closed")
	}
	text := string(got)
	refused := text == "" || strings.HasPrefix(text, "HTTP/1.1 400 ") ||
		strings.HasPrefix(text, "HTTP/1.1 431 ") || over && strings.HasPrefix(text, "HTTP/1.1 4")
	if !refused || strings.Count(text, "HTTP/1.1 ") > 1 {
		t.Errorf("answered %.60q", text)
	}
}

// A body may be endless, but its framing may not: the extensions of all chunks are bounded in proportion to the data, because they
// cost work and are thrown away.
func TestChunkExtensionsAreBounded(t *testing.T) {
	p := newWirePod(t, always(ok("fine")))
	_, listen := serving(t, api.ProtocolHTTP, p.addr)
	c := connect(t, listen)
	_ = c.SetDeadline(time.Now().Add(soon))
	gone := make(chan error, 1)
	go func() { _, _ = io.Copy(io.Discard, c.r); gone <- nil }()
	c.send(post("Transfer-Encoding: chunked\r\n", ""))
	chunk := "1;a=" + strings.Repeat("b", 2000) + "\r\nx\r\n"
	var err error
	for sent := 0; sent < 64<<20 && err == nil; sent += len(chunk) {
		_, err = io.WriteString(c, chunk)
	}
	if err == nil || isTimeout(err) {
		t.Errorf("64 MB of extensions were taken: %v", err)
	}
	<-gone
	if len(p.requests()) > 0 {
		t.Error("the pod received a whole request")
	}
}

// Trailers that would change the meaning of the head are refused or dropped, and never get into a head.
func TestForbiddenTrailers(t *testing.T) {
	for name, trailer := range map[string]string{
		"length":          "Content-Length: 50",
		"coding":          "Transfer-Encoding: gzip",
		"host":            "Host: evil",
		"connection":      "Connection: x",
		"trailer":         "Trailer: X",
		"announced, host": "Host: evil",
	} {
		t.Run(name, func(t *testing.T) {
			p := newWirePod(t, always(ok("fine")))
			_, listen := serving(t, api.ProtocolAuto, p.addr)
			c := connect(t, listen)
			fields := "Transfer-Encoding: chunked\r\n"
			if field, _, _ := strings.Cut(trailer, ":"); strings.HasPrefix(name, "announced") {
				fields += "Trailer: " + field + "\r\n"
			}
			c.send(post(fields, "5\r\nhello\r\n0\r\n"+trailer+"\r\n\r\n"))
			m, err := readHead(c.r)
			if err == nil && m.status() != 200 && m.status() != 400 {
				t.Errorf("got %q", m.start)
			}
			if strings.Contains(p.received(), trailer) {
				t.Errorf("the pod received %q", p.received())
			}
			for _, m := range p.requests() {
				if m.value("Host") != "h" || m.value("Content-Length") != "" || m.body != "hello" {
					t.Errorf("the pod received %q", m.lines)
				}
			}
		})
	}
}

// If a request breaks off, the pod's connection is not used again.
func TestNoReuseAfterABrokenBody(t *testing.T) {
	p := newWirePod(t, always(ok("fine")))
	_, listen := serving(t, api.ProtocolHTTP, p.addr)
	c := connect(t, listen)
	c.send(post("Content-Length: 100\r\n", "hello"))
	eventually(t, "begun", func() bool { return strings.Contains(p.received(), "hello") })
	_ = c.Close()
	p.accepted()[0].wantEnd(t)
	fence(t, listen, p)
	if len(p.accepted()) < 2 {
		t.Error("there was no second connection")
	}
}
