package forward

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
)

// answerOf is what a client receives of an app that answers its request with these bytes and then ends.
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
