package forward

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestSniff(t *testing.T) {
	for name, tc := range map[string]struct {
		bytes string
		want  Kind
	}{
		"nothing":               {"", KindUndecided},
		"get":                   {"GET / HTTP/1.1\r\n", KindHTTP},
		"get, first byte":       {"G", KindUndecided},
		"get, up to the target": {"GET ", KindUndecided},
		"own method":            {"VERSION-CONTROL /a", KindHTTP},
		"absolute form":         {"GET http://h/", KindHTTP},
		"absolute form, begun":  {"GET ht", KindUndecided},
		"absolute form, upper":  {"GET HTTP://h/", KindHTTP},
		"asterisk":              {"OPTIONS * HTTP/1.1", KindHTTP},
		"http/2":                {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", KindHTTP},
		"connect":               {"CONNECT h:443 HTTP/1.1", KindTCP},
		"tls":                   {"\x16\x03\x01\x02\x00", KindTCP},
		"lower case":            {"get key\r\n", KindTCP},
		"memcached":             {"set a 0 0 1\r\n", KindTCP},
		"redis":                 {"*1\r\n$4\r\nPING\r\n", KindTCP},
		"redis inline":          {"PING\r\n", KindTCP},
		"redis inline get":      {"GET key\r\n", KindTCP},
		"nats":                  {"CONNECT {\"verbose\":false}", KindTCP},
		"stomp":                 {"CONNECT\naccept-version:1.2\n", KindTCP},
		"smtp":                  {"EHLO there\r\n", KindTCP},
		"ssh":                   {"SSH-2.0-OpenSSH_9.2\r\n", KindTCP},
		"postgres":              {"\x00\x00\x00\x08\x04\xd2\x16\x2f", KindTCP},
		"mqtt":                  {"\x10\x0c\x00\x04MQTT", KindTCP},
		"proxy protocol":        {"PROXY TCP4 192.0.2.1", KindTCP},
		"amqp":                  {"AMQP\x00\x00\x09\x01", KindTCP},
		"rtsp":                  {"DESCRIBE rtsp://h/", KindTCP},
		"space first":           {" GET /", KindTCP},
		"endless method":        {strings.Repeat("A", maxMethod+1), KindTCP},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Sniff([]byte(tc.bytes)); got != tc.want {
				t.Errorf("Sniff(%q) = %v, want %v", tc.bytes, got, tc.want)
			}
		})
	}
}

// What was said of some bytes holds whatever follows, and there is an answer before long.
func FuzzSniff(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n", "PRI * HTTP/2.0", "\x16\x03\x01", "GET http://", "get x", "A-_ h"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decided := KindUndecided
		for i := range len(b) + 1 {
			got := Sniff(b[:i])
			if decided != KindUndecided && got != decided {
				t.Fatalf("%q is %v, and %q is %v", b[:i-1], decided, b[:i], got)
			}
			if decided = got; decided == KindUndecided && i > maxMethod+len(" http") {
				t.Fatalf("undecided about %q", b[:i])
			}
		}
	})
}

// pair returns the two ends of a connection.
func pair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func TestPeek(t *testing.T) {
	for name, tc := range map[string]struct {
		pieces []string
		close  bool
		want   Kind
		err    error
	}{
		"in pieces":      {[]string{"P", "OST", " /", "x"}, false, KindHTTP, nil},
		"silence":        {nil, false, KindTCP, nil},
		"a little":       {[]string{"GE"}, false, KindTCP, nil},
		"half-closed":    {[]string{"GE"}, true, KindTCP, nil},
		"closed at once": {nil, true, KindTCP, ErrNoBytes},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for _, p := range tc.pieces {
					_, _ = io.WriteString(client, p)
					<-time.After(time.Millisecond)
				}
				if tc.close {
					_ = client.CloseWrite()
				}
			}()
			kind, peeked, err := Peek(server, 300*time.Millisecond)
			if kind != tc.want || !errors.Is(err, tc.err) {
				t.Fatalf("got %v, %v", kind, err)
			}
			if all := strings.Join(tc.pieces, ""); !strings.HasPrefix(all, string(peeked)) {
				t.Errorf("peeked %q of %q", peeked, all)
			}
			if err != nil {
				return
			}
			// Nothing is lost, and no deadline is left behind.
			<-sent
			_ = client.CloseWrite()
			rest, err := io.ReadAll(NewPeekedConn(server, peeked))
			if all := strings.Join(tc.pieces, ""); err != nil || string(rest) != all {
				t.Errorf("read %q, %v; want %q", rest, err, all)
			}
		})
	}
}

func TestPeekedConnWritesTo(t *testing.T) {
	client, server := pair(t)
	_, _ = io.WriteString(client, "cdef")
	_ = client.CloseWrite()
	var got bytes.Buffer
	if n, err := NewPeekedConn(server, []byte("ab")).WriteTo(&got); n != 6 || err != nil || got.String() != "abcdef" {
		t.Errorf("got %q, %d, %v", got.String(), n, err)
	}
}
