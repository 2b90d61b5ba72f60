// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// sniff returns what a Sniffer says about b.
func sniff(b []byte) Kind {
	var s Sniffer
	return s.Feed(b)
}

func TestSniff(t *testing.T) {
	for name, tc := range map[string]struct {
		bytes string
		want  Kind
	}{
		"nothing":                        {"", KindUndecided},
		"get":                            {"GET / HTTP/1.1\r\n", KindHTTP},
		"get, first byte":                {"G", KindUndecided},
		"get, up to the target":          {"GET ", KindUndecided},
		"get, begun":                     {"GET /", KindHTTP},
		"own method":                     {"VERSION-CONTROL /a", KindHTTP},
		"absolute form":                  {"GET http://h/", KindHTTP},
		"absolute form, begun":           {"GET ht", KindUndecided},
		"absolute form, upper":           {"GET HTTP://h/", KindHTTP},
		"asterisk":                       {"OPTIONS * HTTP/1.1", KindHTTP},
		"asterisk, begun":                {"OPTIONS *", KindUndecided},
		"http/2":                         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", KindHTTP},
		"connect":                        {"CONNECT h:443 HTTP/1.1\r\n", KindHTTP},
		"empty line":                     {"\r\n", KindUndecided},
		"empty line first":               {"\r\nGET / HTTP/1.1\r\n", KindHTTP},
		"empty LF line first":            {"\nGET / HTTP/1.1\r\n", KindHTTP},
		"many empty lines first":         {strings.Repeat("\r\n\n", 100) + "GET / HTTP/1.1\r\n", KindHTTP},
		"lower case":                     {"get / HTTP/1.1\r\n", KindHTTP},
		"lower version":                  {"get / http/1.1\r\n", KindHTTP},
		"mixed case":                     {"Get /a?b HTTP/1.0\n", KindHTTP},
		"odd token":                      {"G~T! x HTTP/1.1\r\n", KindHTTP},
		"tabs":                           {"GET\t/\tHTTP/1.1\r\n", KindHTTP},
		"tabs, lower case":               {"get\t/\tHTTP/1.1\r\n", KindHTTP},
		"two spaces":                     {"get  /  HTTP/1.1\r\n", KindHTTP},
		"space first":                    {" GET / HTTP/1.1\r\n", KindHTTP},
		"CR for a space":                 {"get\r/\rHTTP/1.1\r\n", KindHTTP},
		"space in the target":            {"get /a b HTTP/1.1\r\n", KindHTTP},
		"target of another scheme":       {"GET ftp://h/ HTTP/1.1\r\n", KindHTTP},
		"target is an authority":         {"GET h:80 HTTP/1.1\r\n", KindHTTP},
		"no target":                      {"GET HTTP/1.1\r\n", KindHTTP},
		"words behind it":                {"get / HTTP/1.1 x\r\n", KindHTTP},
		"HTTP/3":                         {"get / HTTP/3\r\n", KindHTTP},
		"HTTP/0.9":                       {"GET /\r\n", KindHTTP},
		"long method":                    {strings.Repeat("A", 100_000) + " / HTTP/1.1\r\n", KindHTTP},
		"long target, lower case":        {"get /" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\n", KindHTTP},
		"NUL in the target":              {"get /\x00 HTTP/1.1\r\n", KindHTTP},
		"long method, so far":            {strings.Repeat("A", 100_000), KindUndecided},
		"tls":                            {"\x16\x03\x01\x02\x00", KindTCP},
		"memcached":                      {"get key\r\n", KindTCP},
		"memcached, a path":              {"get /key\r\n", KindTCP},
		"memcached, set":                 {"set a 0 0 1\r\n", KindTCP},
		"redis":                          {"*1\r\n$4\r\nPING\r\n", KindTCP},
		"redis inline":                   {"PING\r\n", KindTCP},
		"redis inline, LF":               {"PING\n", KindTCP},
		"redis inline get":               {"GET key\r\n", KindTCP},
		"redis inline keys":              {"KEYS *\r\n", KindTCP},
		"redis, an empty line":           {"\r\nPING\r\n", KindTCP},
		"nats":                           {"CONNECT {\"verbose\":false}\r\n", KindTCP},
		"stomp":                          {"CONNECT\naccept-version:1.2\n", KindTCP},
		"smtp":                           {"EHLO there\r\n", KindTCP},
		"irc":                            {"NICK me\r\n", KindTCP},
		"ssh":                            {"SSH-2.0-OpenSSH_9.2\r\n", KindTCP},
		"postgres":                       {"\x00\x00\x00\x08\x04\xd2\x16\x2f", KindTCP},
		"mqtt":                           {"\x10\x0c\x00\x04MQTT", KindTCP},
		"json":                           {`{"jsonrpc":"2.0"`, KindTCP},
		"proxy protocol":                 {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", KindTCP},
		"amqp":                           {"AMQP\x00\x00\x09\x01", KindTCP},
		"rtsp":                           {"DESCRIBE rtsp://h/ RTSP/1.0\r\n", KindTCP},
		"sip":                            {"INVITE sip:a@h SIP/2.0\r\n", KindTCP},
		"icap":                           {"OPTIONS icap://h/ ICAP/1.0\r\n", KindTCP},
		"HTTP without a number":          {"SAY x HTTP/ HTTP/x\r\n", KindTCP},
		"HTTP within a word":             {"SAY xHTTP/1.1\r\n", KindTCP},
		"HTTP on the second line":        {"PING\r\nGET / HTTP/1.1\r\n", KindTCP},
		"quoted method":                  {"\"GET\" / HTTP/1.1\r\n", KindHTTP},
		"quoted method, so far":          {"\"GET\" / HTTP/1.1\r", KindTCP},
		"method with a strange end":      {"POST@ / HTTP/1.1\n", KindHTTP},
		"byte order mark":                {"\xef\xbb\xbfGET / HTTP/1.1\r\n", KindHTTP},
		"0xff first":                     {"\xffGET / HTTP/1.0 \r\n", KindHTTP},
		"NUL first":                      {"\x00GET / HTTP/1.1\r\n", KindHTTP},
		"NUL in the method":              {"GE\x00T /a b HTTP/1.1\r\n", KindHTTP},
		"strange after empty lines":      {"\r\n\r\n@GET / HTTP/1.1\r\n", KindHTTP},
		"only a version behind it":       {"(GET) HTTP/1.1\r\n", KindHTTP},
		"strange, and a long line":       {"@ /" + strings.Repeat("a", maxStrange/2) + " HTTP/1.1\r\n", KindHTTP},
		"strange, and too long":          {"@ /" + strings.Repeat("a", maxStrange) + " HTTP/1.1\r\n", KindTCP},
		"a form feed for a space":        {"GET\x0c/ff\x0cHTTP/1.1\r\n", KindHTTP},
		"a no-break space":               {"GET\xa0/ff\xa0HTTP/1.1\r\n", KindHTTP},
		"a form feed at the end":         {"\x0cGET / HTTP/1.1\x0c\r\n", KindHTTP},
		"a form feed, lower case":        {"get\x1c/ff\x1cHTTP/1.1\r\n", KindHTTP},
		"a space first, HTTP/0.9":        {" GET /\r\n", KindHTTP},
		"five words":                     {"get /a b c HTTP/1.1\r\n", KindHTTP},
		"a version in the middle":        {"get /a b HTTP/1.1 c\r\n", KindTCP},
		"combined log format":            {`10.0.0.1 - - [27/Nov/2026:17:00:00 +0000] "GET / HTTP/1.1" 200 12` + "\n", KindTCP},
		"syslog of old":                  {`Nov 27 17:00:00 host nginx: "GET / HTTP/1.1" 200` + "\n", KindTCP},
		"syslog, octets counted":         {"57 <34>1 2026 host app - GET / HTTP/1.1 200\n", KindTCP},
		"a log line of words":            {"info request GET / HTTP/1.1 200\n", KindTCP},
		"irc, about versions":            {"PRIVMSG #c :see HTTP/2 now\r\n", KindTCP},
		"redis, a key like a URL":        {"GET http-cache:1\r\n", KindTCP},
		"nats, a subject like it":        {"PUB http.req 2\r\n", KindTCP},
		"https":                          {"GET https://h/", KindHTTP},
		"https, begun":                   {"GET https:/", KindUndecided},
		"strange, no version":            {"@GET / HTTP/one\r\n", KindTCP},
		"strange, and more behind":       {"@GET / HTTP/1.1x\r\n", KindTCP},
		"an access log's line":           {"<34>1 host \"GET / HTTP/1.1\" 200 12\n", KindTCP},
		"an access log's line, unquoted": {"<34>1 host GET / HTTP/1.1 200 12\n", KindTCP},
		"a request in JSON":              {`{"m":"GET / HTTP/1.1"}` + "\n", KindTCP},
		"proxy protocol 2":               {"\r\n\r\n\x00\r\nQUIT\n\x21\x11 / HTTP/1.1\r\n", KindTCP},
		"uwsgi":                          {"\x00\x5e\x01\x00\x0f\x00SERVER_PROTOCOL\x08\x00HTTP/1.1\x0a\x00", KindTCP},
		"socks":                          {"\x05\x01\x00", KindTCP},
		"jdwp":                           {"JDWP-Handshake", KindUndecided},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sniff([]byte(tc.bytes)); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// A decision about some bytes holds whatever follows and however the bytes arrive, except for a strange line, which may end as HTTP.
// A line that our own parser accepts as a request line is never taken for plain bytes, and neither is one whose last word is a
// version.
func FuzzSniff(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\n", "PRI * HTTP/2.0", "\x16\x03\x01", "GET http://", "get x", "A-_ h",
		"\"GET\" / HTTP/1.1\r\n", "\r\n\nget x HTTP/1.1\r\n",
	} {
		f.Add([]byte(s))
	}
	version := regexp.MustCompile(`^[^ \t\r\n][^\n]*[ \t\r]HTTP/[0-9][0-9.]*[ \t\r]*\n`)
	f.Fuzz(func(t *testing.T, b []byte) {
		decided := KindUndecided
		var s Sniffer
		for i := range len(b) + 1 {
			got := sniff(b[:i])
			if decided != KindUndecided && got != decided && (!s.strange || got != KindHTTP) {
				t.Fatalf("%q is %v, and %q is %v", b[:i-1], decided, b[:i], got)
			}
			decided = got
			if i > 0 && s.Feed(b[i-1:i]) != got {
				t.Fatalf("%q is %v, and byte by byte it is %v", b[:i], got, s.kind)
			}
		}
		line := bytes.TrimLeft(b, " \t\r\n")
		if sniff(b) != KindHTTP && len(line) < maxStrange && version.Match(line) {
			t.Fatalf("%q ends in a version", b)
		}
		var r http1.Request
		if n, err := r.Parse(append(slices.Clone(b), "\r\n\r\n"...)); n > 0 && err == nil && decided == KindTCP {
			t.Fatalf("%q is a request", b)
		}
	})
}

func TestPeek(t *testing.T) {
	for name, tc := range map[string]struct {
		pieces []string
		close  bool
		want   Kind
		err    error
	}{
		"in pieces":      {[]string{"P", "OST", " /", "x"}, false, KindHTTP, nil},
		"silence":        {nil, false, KindUndecided, nil},
		"a little":       {[]string{"GE"}, false, KindUndecided, nil},
		"a long line":    {[]string{strings.Repeat("G", 100), strings.Repeat("G", 2*maxPeek)}, false, KindUndecided, nil},
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
			// Nothing is lost, and no deadline is left.
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
