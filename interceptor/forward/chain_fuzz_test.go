// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/headers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// maxFuzzed is how many bytes of a fuzzed connection are sent.
const maxFuzzed = 64 << 10

// framed is a request as net/http reads it.
type framed struct{ method, target, host, body string }

// refused is recorded for bytes that net/http does not read as a request.
const refused = "refused"

// readFramed reads a request. A malformed one is refused, and a premature end is io.ErrUnexpectedEOF or io.EOF.
func readFramed(r *bufio.Reader) (f framed, last bool, _ error) {
	req, err := http.ReadRequest(r)
	if err != nil {
		return framed{method: refused}, true, err
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return framed{method: refused}, true, err
	}
	return framed{req.Method, req.RequestURI, req.Host, string(body)}, req.Close, nil
}

// strictPod is a pod that reads with net/http and records what it reads. Each fuzzed connection has its own source address, by which
// its requests are recorded.
type strictPod struct {
	mu  sync.Mutex // protects got
	got map[string][]framed
}

func (p *strictPod) record(from string, f framed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if got, ok := p.got[from]; ok {
		p.got[from] = append(got, f)
	}
}

func (p *strictPod) begin(from string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got[from] = []framed{}
}

func (p *strictPod) end(from string) []framed {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got[from]
	delete(p.got, from)
	return got
}

// script answers requests until one is refused.
func (p *strictPod) script(conn *net.TCPConn, r *bufio.Reader) {
	for {
		// The last X-Forwarded-For is the engine's. It comes after everything that arrived with the request, but a refused request needs
		// its source too.
		if _, err := r.Peek(1); err != nil {
			return
		}
		from := lastForwarded(r)
		f, _, err := readFramed(r)
		if err != nil {
			if !brokeOff(err) {
				p.record(from, f)
				_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
			return
		}
		p.record(from, f)
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
		if f.method != http.MethodHead {
			answer += "ok"
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
}

// brokeOff reports whether the request was cut off, as when the engine refuses the rest of it. net/http calls an incomplete trailer
// too long for the buffer, although this buffer holds any trailer.
func brokeOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, new(*net.OpError)) ||
		strings.Contains(err.Error(), "reading trailer") || strings.Contains(err.Error(), "suspiciously long trailer")
}

// lastForwarded returns the address in the last X-Forwarded-For of the next head, which the engine writes in one piece.
func lastForwarded(r *bufio.Reader) string {
	for seen := 0; ; {
		b, _ := r.Peek(r.Buffered())
		if end := bytes.Index(b, []byte("\r\n\r\n")); end >= 0 {
			at := bytes.LastIndex(b[:end], []byte("\r\nX-Forwarded-For: "))
			line, _, _ := bytes.Cut(b[max(at, 0)+2:end], []byte("\r\n"))
			return string(line[bytes.LastIndexByte(line, ' ')+1:])
		}
		if len(b) == seen {
			if _, err := r.Peek(len(b) + 1); err != nil {
				return ""
			}
			continue
		}
		seen = len(b)
	}
}

// withoutPadding removes the space after chunk sizes, which net/http refuses before an extension.
func withoutPadding(b []byte) []byte {
	var out []byte
	for {
		var r http1.Request
		n, err := r.Parse(b)
		if err != nil || n == 0 {
			return append(out, b...)
		}
		n += r.Skip
		out = append(out, b[:n]...)
		if b = b[n:]; r.Chunked {
			out, b = appendNormalized(out, b, http1.Chunked{})
		} else {
			n = int(min(max(r.Length, 0), int64(len(b))))
			out, b = append(out, b[:n]...), b[n:]
		}
	}
}

// appendNormalized appends a chunked body as it is passed on, up to the first malformed byte, and returns what follows.
func appendNormalized(out, b []byte, c http1.Chunked) (_, rest []byte) {
	for len(b) > 0 && !c.Done() {
		n, kind, err := c.Next(b)
		if err != nil {
			return append(out, b...), nil
		}
		switch kind {
		case http1.Padding:
		case http1.BareLF:
			out = append(out, '\r', '\n')
		default:
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out, b
}

// wanted returns what net/http reads from a client's bytes without padded chunk sizes.
func wanted(b []byte) []framed {
	var all []framed
	source := bytes.NewReader(withoutPadding(b))
	r := bufio.NewReaderSize(source, maxFuzzed+4096)
	for {
		for range 4 { // empty lines are allowed before a request, but net/http does not know that
			b, _ := r.Peek(2)
			_, _ = r.Discard(http1.BlankLine(b))
		}
		f, last, err := readFramed(r)
		if err != nil {
			return all
		}
		if all = append(all, f); last {
			return all
		}
	}
}

// FuzzChain sends a client's bytes through an engine to a pod. The requests that the pod reads are those that net/http reads from the
// same bytes without an engine in between: all of them or the first few, and no others.
func FuzzChain(f *testing.F) {
	for _, seed := range chainSeeds() {
		f.Add([]byte(seed), uint16(0))
		f.Add([]byte(seed), uint16(len(seed)/2))
		f.Add([]byte(seed), uint16(len(seed)-3))
	}
	// The pod has received part of a trailer when the engine refuses it.
	f.Add([]byte("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n"), uint16(66))
	c := newChain(f)
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		b = b[:min(len(b), maxFuzzed)]
		got, want := c.run(t, b, int(cut)%(len(b)+1)), wanted(b)
		for i, g := range got {
			if g.method == refused {
				// The bytes are passed on nearly unchanged, so net/http refuses them on both sides.
				if len(want) > i {
					t.Errorf("the pod refused request %d, which was %q", i, want[i])
				}
				return
			}
			if i >= len(want) {
				t.Fatalf("the pod got %q, as request %d of %d", g, i, len(want))
			}
			if want[i].host == "" {
				g.host = "" // the Service's name, which replaces a missing host
			}
			if g != want[i] {
				t.Fatalf("request %d was %q, want %q", i, g, want[i])
			}
		}
	})
}

// chain is an engine in front of a strict pod.
type chain struct {
	*rig
	pod   *strictPod
	turns int
}

func newChain(tb testing.TB) *chain {
	tb.Helper()
	pod := &strictPod{got: map[string][]framed{}}
	return &chain{rig: newRig(tb, Options{Tick: time.Second, TrustedHops: headers.AllHops}, newPod(tb, pod.script)), pod: pod}
}

// run sends b as one connection, from an address of its own, and returns what arrived at the pod.
func (c *chain) run(t *testing.T, b []byte, cut int) []framed {
	t.Helper()
	c.turns++
	from := fmt.Sprintf("127.%d.%d.%d", 1+c.turns>>16&0x7f, c.turns>>8&0xff, c.turns&0xff)
	c.pod.begin(from)
	sendFuzzed(t, c.rig, from, b, cut)
	return c.pod.end(from)
}

// sendFuzzed sends b in two parts from an address, and reads answers until the engine closes.
func sendFuzzed(t *testing.T, r *rig, from string, b []byte, cut int) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", r.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(within))
	// Writing fails if the engine has refused earlier bytes, and reading if it has reset the connection.
	_, _ = conn.Write(b[:cut])
	_, _ = conn.Write(b[cut:])
	_ = conn.(*net.TCPConn).CloseWrite()
	_, err = io.Copy(io.Discard, conn)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the connection goes on")
	}
}

// chainSeeds are connections of well-behaved clients, and of clients that try to have one request taken for two.
func chainSeeds() []string {
	const get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
	post := func(fields, rest string) string { return "POST /p HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n" + rest }
	length := post("Content-Length: 5\r\n", "hello")
	chunked := post("Transfer-Encoding: chunked\r\n", "5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n")
	return []string{
		get, get + get, length + get, chunked + get, get + chunked + length + get, "\r\n" + length + "\r\n\r\n" + get,
		"\n" + get + "\n\n" + get,
		"HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n" + get,
		"GET /0 HTTP/1.0\r\n\r\n" + smuggled,
		"POST /0 HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc" + get,
		"GET http://other:80/x?y HTTP/1.1\r\nHost: h\r\n\r\n" + get,
		"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n" + get,
		"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n" + get,
		post("Connection: close\r\nContent-Length: 2\r\n", "ab") + smuggled,
		post("Connection: Content-Length, Host, Transfer-Encoding\r\nContent-Length: 36\r\n", smuggled) + get,
		post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "24\r\n"+smuggled+"\r\n0\r\n\r\n") + get,
		post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+smuggled),
		post("Content-Length: 5\r\nContent-Length: 0\r\n", smuggled),
		post("Content-Length: +5\r\n", "hello"+smuggled),
		post("Content-Length : 5\r\n", "hello"+smuggled),
		post("Content-Length:\r\n 5\r\n", "hello"+smuggled),
		post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"+smuggled),
		post("Transfer-Encoding: chunked\r\n", "5 \r\nhello\r\n0\r\n\r\n"+smuggled),
		post("Transfer-Encoding: chunked\r\n", "5\t ;a\r\nhello\r\n0 ;b\r\nA: b\r\n\r\n"+get),
		post("Transfer-Encoding: chunked\r\n", "5;\n\r\nhello\r\n0\r\n\r\n"+smuggled),
		post("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 5\r\n\r\n"+smuggled),
		post("Transfer-Encoding: chunked\r\n", "00\r\n\r\n"+smuggled),
		post("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+smuggled),
		post("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello"+get),
		post("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA\r\n", smuggled),
		"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + get,
		post("Content-Length: 20000\r\n", strings.Repeat("y", 20000)) + get,
		post("Transfer-Encoding: chunked\r\n", "9c40\r\n"+strings.Repeat("y", 40000)+"\r\n0\r\n\r\n") + get,
		"GET /" + strings.Repeat("z", 9000) + " HTTP/1.1\r\nHost: h\r\n\r\n" + get,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n" + get,
		post("X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8, 9.9.9.9\r\n", "") + get,
	}
}

// Everything that well-behaved clients send is passed on completely, so that the fuzz test has something to compare.
func TestChainCarriesAll(t *testing.T) {
	c := newChain(t)
	for i, seed := range chainSeeds()[:10] {
		for _, cut := range []int{0, 1, len(seed) / 3, len(seed) - 1} {
			got, want := c.run(t, []byte(seed), cut), wanted([]byte(seed))
			for i := range got {
				if want[i].host == "" {
					got[i].host = ""
				}
			}
			if len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("seed %d cut at %d: got %q, want %q", i, cut, got, want)
			}
		}
	}
}

// This tests the oracle itself with the well-formed seeds.
func TestWanted(t *testing.T) {
	const get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
	for name, tc := range map[string]struct {
		bytes string
		want  []framed
	}{
		"two":        {get + "\r\n" + get, []framed{{"GET", "/a", "h", ""}, {"GET", "/a", "h", ""}}},
		"cut":        {get + get[:len(get)-1], []framed{{"GET", "/a", "h", ""}}},
		"body, last": {"POST /b HTTP/1.0\r\nContent-Length: 2\r\n\r\nab" + get, []framed{{"POST", "/b", "", "ab"}}},
		"none":       {"GET /%zz HTTP/1.1\r\nHost: h\r\n\r\n" + get, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := wanted([]byte(tc.bytes)); fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	if _, err := url.ParseRequestURI("/%zz"); err == nil {
		t.Error("/%zz has become a URL, so that nothing tests how one that is none goes through")
	}
}
