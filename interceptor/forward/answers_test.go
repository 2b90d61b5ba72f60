// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// answerOf returns what a client receives from an app that answers its request with these bytes and then closes.
func answerOf(t *testing.T, request, answer string) string {
	t.Helper()
	c := newRig(t, Options{Tick: tick}, newPod(t, func(c *net.TCPConn, b *bufio.Reader) {
		if _, err := http.ReadRequest(b); err == nil {
			_, _ = io.WriteString(c, answer)
		}
	})).dial()
	c.send("%s", request)
	return c.ends()
}

const getAndClose = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

// A client gets the control bytes that an app puts into a header, as it would without us.
func TestControlsInAnAnswerPass(t *testing.T) {
	for name, value := range map[string]string{
		"escape": "\x1b[31mred\x1b[0m", "one": "a\x01b", "DEL": "\x7f", "others": "\x02\x08\x0b\x0c\x1f", "tab": "a\tb",
	} {
		t.Run(name, func(t *testing.T) {
			got := answerOf(t, getAndClose, "HTTP/1.1 200 O\x1bK\r\nA: "+value+"\r\nContent-Length: 2\r\n\r\nok")
			want := "HTTP/1.1 200 O\x1bK\r\nA: " + value + "\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	for name, value := range map[string]string{"NUL": "a\x00b", "CR": "a\rb"} {
		t.Run(name, func(t *testing.T) {
			got := answerOf(t, getAndClose, "HTTP/1.1 200 OK\r\nA: "+value+"\r\nContent-Length: 2\r\n\r\nok")
			if len(got) < 12 || got[:12] != "HTTP/1.1 502" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// A client may offer protocols in several Upgrade fields, which form one list, and the app may choose any of them.
func TestUpgradeOfferedInTwoFields(t *testing.T) {
	const answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes"
	for name, offer := range map[string]string{
		"last": "Upgrade: acme/1\r\nUpgrade: websocket\r\n", "first": "Upgrade: websocket\r\nUpgrade: acme/1\r\n",
		"of a list": "Upgrade: a, b\r\nUpgrade: c, websocket\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got := answerOf(t, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n"+offer+"\r\n", answer); got != answer {
				t.Errorf("got %q, want %q", got, answer)
			}
		})
	}
}

// Chunks from apps that end their lines in LF alone, or pad their sizes, reach the client well-formed.
func TestChunksOfAnswersAreRepaired(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
	large, long := strings.Repeat("y", 100<<10), strings.Repeat("1\nx\n", 20<<10)
	for name, tc := range map[string]struct{ sent, want string }{
		"LF":            {"5\nhello\n0\n\n", "5\r\nhello\r\n0\r\n\r\n"},
		"LF, trailer":   {"5\nhello\n0\nA: \x1bb\n\n", "5\r\nhello\r\n0\r\nA: \x1bb\r\n\r\n"},
		"padded":        {"5   \r\nhello\r\n0 ;a\r\n\r\n", "5\r\nhello\r\n0;a\r\n\r\n"},
		"large, LF":     {"19000\n" + large + "\n0\n\n", "19000\r\n" + large + "\r\n0\r\n\r\n"},
		"many, LF":      {long + "0\n\n", strings.ReplaceAll(long, "\n", "\r\n") + "0\r\n\r\n"},
		"as they ought": {"5;a\r\nhello\r\n0\r\n\r\n", "5;a\r\nhello\r\n0\r\n\r\n"},
	} {
		for how, sendPieces := range map[string]int{"in one": 1 << 20, "byte by byte": 1} {
			if sendPieces == 1 && len(tc.sent) > 1000 {
				sendPieces = 1001
			}
			t.Run(name+", "+how, func(t *testing.T) {
				c := newRig(t, Options{Tick: tick}, newPod(t, func(c *net.TCPConn, b *bufio.Reader) {
					if _, err := http.ReadRequest(b); err == nil {
						writePieces(c, head+"\r\n"+tc.sent, sendPieces)
					}
				})).dial()
				c.send(getAndClose)
				if got, want := c.ends(), head+"Connection: close\r\n\r\n"+tc.want; got != want {
					t.Errorf("got %d bytes, want %d: %.200q", len(got), len(want), got)
				}
			})
		}
	}
}

// An HTTP/1.0 client gets the content of such chunks.
func TestChunksOfLFForHTTP10(t *testing.T) {
	got := answerOf(t, "GET / HTTP/1.0\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \nhe\n3\nllo\n0\n\n")
	if want := "HTTP/1.1 200 OK\r\n\r\nhello"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A request's chunk sizes may have space after them. Stricter readers never see it.
func TestPaddedChunksOfRequests(t *testing.T) {
	for name, tc := range map[string]struct{ sent, want string }{
		"space":            {"5 \r\nhello\r\n0 \r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"},
		"tabs":             {"5\t\t\r\nhello\r\n0\t\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"},
		"before extension": {"5 \t;a=b\r\nhello\r\n0 ;c\r\n\r\n", "5;a=b\r\nhello\r\n0;c\r\n\r\n"},
		"before a trailer": {"0 \r\nA: b\r\n\r\n", "0\r\nA: b\r\n\r\n"},
	} {
		for how, piece := range map[string]int{"in one": 1 << 20, "byte by byte": 1} {
			t.Run(name+", "+how, func(t *testing.T) {
				bodies := make(chan string, 2)
				c := newRig(t, Options{Tick: tick}, newPod(t, func(c *net.TCPConn, b *bufio.Reader) {
					for {
						got := readUntil(b, "\r\n\r\n") + readUntil(b, "\r\n\r\n")
						if got == "" {
							return
						}
						bodies <- got
						_, _ = io.WriteString(c, empty)
					}
				})).dial()
				const head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
				go writePieces(c, head+tc.sent+head+tc.sent, piece)
				for range 2 {
					c.reads(empty)
					_, got, _ := strings.Cut(<-bodies, "\r\n\r\n")
					if got != tc.want {
						t.Errorf("the app got %q, want %q", got, tc.want)
					}
				}
			})
		}
	}
}

// writePieces writes b in pieces of that many bytes.
func writePieces(w io.Writer, b string, piece int) {
	for len(b) > 0 {
		n, err := io.WriteString(w, b[:min(piece, len(b))])
		if err != nil {
			return
		}
		b = b[n:]
	}
}

// readUntil reads until end has arrived, or the connection has ended.
func readUntil(r *bufio.Reader, end string) string {
	var b []byte
	for !strings.HasSuffix(string(b), end) {
		c, err := r.ReadByte()
		if err != nil {
			break
		}
		b = append(b, c)
	}
	return string(b)
}
