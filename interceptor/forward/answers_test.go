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

// A client may offer protocols in several Upgrade fields, which are one list, and the app may choose any of them.
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
