// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// smuggled is pipelined after each bad request. It must never reach a pod, because nobody knows where the bad request ends.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

// post returns a request with these header lines and the bytes after its head.
func post(fields, rest string) string {
	return "POST /bad HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n" + rest
}

// badRequest is bytes that must not be forwarded, and the statuses that are right for them; if there are none, 400 is right.
type badRequest struct {
	bytes  string
	status []int
}

// framings returns requests whose length two readers could see differently. RFC 9112 allows a server to be lenient with some of them.
// We are not, because we cannot know how lenient the app is.
func framings() map[string]badRequest {
	const chunks, body = "5\r\nhello\r\n0\r\n\r\n", "hello"
	unknown := []int{400, 501}
	return map[string]badRequest{
		"length, then chunked":           {post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunks), nil},
		"chunked, then length":           {post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunks), nil},
		"chunked and length 0":           {post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", chunks), nil},
		"unknown coding and length":      {post("Transfer-Encoding: x\r\nContent-Length: 5\r\n", body), unknown},
		"empty coding and length":        {post("Transfer-Encoding:\r\nContent-Length: 5\r\n", body), unknown},
		"two different lengths":          {post("Content-Length: 5\r\nContent-Length: 6\r\n", body), nil},
		"two different lengths, by case": {post("content-length: 5\r\nCONTENT-LENGTH: 0\r\n", body), nil},
		"two equal lengths":              {post("Content-Length: 5\r\nContent-Length: 5\r\n", body), nil},
		"lengths 0 and 0":                {post("Content-Length: 0\r\nContent-Length: 0\r\n", ""), nil},
		"list of equal lengths":          {post("Content-Length: 5, 5\r\n", body), nil},
		"list of lengths":                {post("Content-Length: 5,6\r\n", body), nil},
		"length with plus":               {post("Content-Length: +5\r\n", body), nil},
		"length with minus":              {post("Content-Length: -5\r\n", body), nil},
		"length minus zero":              {post("Content-Length: -0\r\n", ""), nil},
		"length with space inside":       {post("Content-Length: 5 5\r\n", body), nil},
		"length with tab inside":         {post("Content-Length: 1\t1\r\n", body), nil},
		"length in hex":                  {post("Content-Length: 0x5\r\n", body), nil},
		"length in hex digits":           {post("Content-Length: a\r\n", body), nil},
		"length in quotes":               {post("Content-Length: \"5\"\r\n", body), nil},
		"length with a fraction":         {post("Content-Length: 5.0\r\n", body), nil},
		"length with an exponent":        {post("Content-Length: 5e0\r\n", body), nil},
		"length with underscore":         {post("Content-Length: 1_0\r\n", body), nil},
		"length with other digits":       {post("Content-Length: ５\r\n", body), nil},
		"length empty":                   {post("Content-Length:\r\n", body), nil},
		"length of spaces":               {post("Content-Length:   \r\n", body), nil},
		"length beyond 63 bits":          {post("Content-Length: 9223372036854775808\r\n", body), nil},
		"length that wraps to 5":         {post("Content-Length: 18446744073709551621\r\n", body), nil},
		"length endless":                 {post("Content-Length: "+strings.Repeat("9", 300)+"\r\n", body), nil},
		"length on GET, twice":           {"GET /bad HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", nil},
		"unknown coding":                 {post("Transfer-Encoding: xchunked\r\n", chunks), unknown},
		"gzip":                           {post("Transfer-Encoding: gzip\r\n", body), unknown},
		"gzip, chunked":                  {post("Transfer-Encoding: gzip, chunked\r\n", chunks), unknown},
		"identity":                       {post("Transfer-Encoding: identity\r\n", body), unknown},
		"chunked twice in a list":        {post("Transfer-Encoding: chunked, chunked\r\n", chunks), unknown},
		"chunked, identity":              {post("Transfer-Encoding: chunked, identity\r\n", chunks), unknown},
		"identity, chunked":              {post("Transfer-Encoding: identity, chunked\r\n", chunks), unknown},
		"coding empty":                   {post("Transfer-Encoding:\r\n", chunks), unknown},
		"coding and empty element":       {post("Transfer-Encoding: , chunked\r\n", chunks), unknown},
		"coding in quotes":               {post("Transfer-Encoding: \"chunked\"\r\n", chunks), unknown},
		"coding with parameter":          {post("Transfer-Encoding: chunked;a=b\r\n", chunks), unknown},
		"coding after vertical tab":      {post("Transfer-Encoding: \x0bchunked\r\n", chunks), unknown},
		"coding before form feed":        {post("Transfer-Encoding: chunked\x0c\r\n", chunks), unknown},
		"coding before NUL":              {post("Transfer-Encoding: chunked\x00\r\n", chunks), unknown},
		"coding after no-break space":    {post("Transfer-Encoding: \xa0chunked\r\n", chunks), unknown},
		"two lines of chunked":           {post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks), unknown},
		"identity and chunked, lines":    {post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", chunks), unknown},
		"chunked and identity, lines":    {post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunks), unknown},
		"chunked by HTTP/1.0": {
			"POST /bad HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, nil,
		},
		"chunked behind LF": {post("X: y\nTransfer-Encoding: chunked\r\n", chunks), nil},
		"chunked behind CR": {post("X: y\rTransfer-Encoding: chunked\r\n", chunks), nil},
		"chunked, folded":   {post("Transfer-Encoding:\r\n chunked\r\n", chunks), unknown},
		"length, folded":    {post("Content-Length:\r\n 5\r\n", body), nil},
	}
}

// heads returns heads that are not HTTP/1.1.
func heads() map[string]badRequest {
	get := func(fields string) string { return "GET /bad HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n" }
	line := func(l string) string { return l + "\r\nHost: h\r\n\r\n" }
	version := []int{400, 505}
	large := []int{431, 400}
	return map[string]badRequest{
		"space before colon":           {get("X : y\r\n"), nil},
		"tab before colon":             {get("X\t: y\r\n"), nil},
		"space before colon of length": {post("Content-Length : 5\r\n", "hello"), nil},
		"space before colon of coding": {post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), nil},
		"folded by space":              {get("X: y\r\n z\r\n"), nil},
		"folded by tab":                {get("X: y\r\n\tz\r\n"), nil},
		"first line folded":            {"GET /bad HTTP/1.1\r\n X: y\r\nHost: h\r\n\r\n", nil},
		"empty line folded":            {get("X: y\r\n \r\n"), nil},
		"LF after request line":        {"GET /bad HTTP/1.1\nHost: h\r\n\r\n", nil},
		"LF after a header":            {get("X: y\n"), nil},
		"LF at the end":                {"GET /bad HTTP/1.1\r\nHost: h\r\n\n", nil},
		"LF everywhere":                {"GET /bad HTTP/1.1\nHost: h\n\n", nil},
		"CR in a value":                {get("X: a\rb\r\n"), nil},
		"CR CR LF":                     {get("X: a\r\r\n"), nil},
		"CR in a name":                 {get("X\ry: a\r\n"), nil},
		"CR before a name":             {get("\rX: a\r\n"), nil},
		"CR in the request line":       {line("GET /b\rad HTTP/1.1"), nil},
		"CR at the request line's end": {"GET /bad HTTP/1.1\rHost: h\r\n\r\n", nil},
		"NUL in a name":                {get("X\x00: y\r\n"), nil},
		"NUL in a value":               {get("X: a\x00b\r\n"), nil},
		"NUL in the target":            {line("GET /b\x00ad HTTP/1.1"), nil},
		"NUL in the method":            {line("G\x00ET /bad HTTP/1.1"), nil},
		"control in a value":           {get("X: a\x01b\r\n"), nil},
		"escape in a value":            {get("X: a\x1b[0m\r\n"), nil},
		"DEL in a value":               {get("X: a\x7fb\r\n"), nil},
		"DEL in the target":            {line("GET /b\x7fad HTTP/1.1"), nil},
		"vertical tab before a name":   {get("\x0bX: y\r\n"), nil},
		"empty name":                   {get(": y\r\n"), nil},
		"line without colon":           {get("X\r\n"), nil},
		"space in a name":              {get("X y: z\r\n"), nil},
		"bracket in a name":            {get("X(: z\r\n"), nil},
		"quote in a name":              {get("\"X\": z\r\n"), nil},
		"high byte in a name":          {get("X\xe4: z\r\n"), nil},
		"no Host":                      {"GET /bad HTTP/1.1\r\n\r\n", nil},
		"two Hosts":                    {get("Host: other\r\n"), nil},
		"two equal Hosts":              {get("Host: h\r\n"), nil},
		"Host with space":              {"GET /bad HTTP/1.1\r\nHost: a b\r\n\r\n", nil},
		"Host with path":               {"GET /bad HTTP/1.1\r\nHost: a/b\r\n\r\n", nil},
		"Host with user":               {"GET /bad HTTP/1.1\r\nHost: u@a\r\n\r\n", nil},
		"list of Hosts":                {"GET /bad HTTP/1.1\r\nHost: a, b\r\n\r\n", nil},
		"bracket in the method":        {line("GE(T /bad HTTP/1.1"), nil},
		"high byte in the method":      {line("G\xc4T /bad HTTP/1.1"), nil},
		"colon in the method":          {line("GET: /bad HTTP/1.1"), nil},
		"no method":                    {line(" /bad HTTP/1.1"), nil},
		"space before the method":      {line(" GET /bad HTTP/1.1"), nil},
		"two spaces before the target": {line("GET  /bad HTTP/1.1"), nil},
		"two spaces after the target":  {line("GET /bad  HTTP/1.1"), version},
		"space in the target":          {line("GET /b ad HTTP/1.1"), version},
		"tab after the method":         {line("GET\t/bad HTTP/1.1"), nil},
		"tab in the target":            {line("GET /b\tad HTTP/1.1"), nil},
		"no target":                    {line("GET HTTP/1.1"), nil},
		"target without slash":         {line("GET bad HTTP/1.1"), nil},
		"no version":                   {line("GET /bad"), version},
		"no version, but a space":      {line("GET /bad "), version},
		"space after the version":      {line("GET /bad HTTP/1.1 "), version},
		"version in lower case":        {line("GET /bad http/1.1"), version},
		"version 2":                    {line("GET /bad HTTP/2.0"), version},
		"version 2 without minor":      {line("GET /bad HTTP/2"), version},
		"version 0.9":                  {line("GET /bad HTTP/0.9"), version},
		"version 1":                    {line("GET /bad HTTP/1"), version},
		"version 1.":                   {line("GET /bad HTTP/1."), version},
		"version 1.10":                 {line("GET /bad HTTP/1.10"), version},
		"version 01.1":                 {line("GET /bad HTTP/01.1"), version},
		"version 1.1x":                 {line("GET /bad HTTP/1.1x"), version},
		"version 1,1":                  {line("GET /bad HTTP/1,1"), version},
		"version of another protocol":  {line("GET /bad RTSP/1.0"), version},
		"one large header":             {get("X: " + strings.Repeat("x", 2<<20) + "\r\n"), large},
		"one large name":               {get(strings.Repeat("x", 2<<20) + ": y\r\n"), large},
		"many headers":                 {get(strings.Repeat("X: 0123456789\r\n", 2<<20/15)), large},
		"large target":                 {line("GET /" + strings.Repeat("x", 2<<20) + " HTTP/1.1"), []int{414, 431, 400}},
		"endless method":               {strings.Repeat("A", 2<<20) + " / HTTP/1.1\r\nHost: h\r\n\r\n", []int{400, 414, 431, 501}},
	}
}

// Each bad request is refused and its connection is closed. No byte of the request, or of what follows it, reaches a pod.
func TestSmuggling(t *testing.T) {
	for group, cases := range map[string]map[string]badRequest{"framing": framings(), "head": heads()} {
		t.Run(group, func(t *testing.T) {
			// Sniffing is off, because it would leave bytes that are not HTTP at all to the app.
			p := newWirePod(t, always(ok("fine")))
			_, listen := serving(t, api.ProtocolHTTP, p.addr)
			for name, tc := range cases {
				t.Run(name, func(t *testing.T) {
					if len(tc.status) == 0 {
						tc.status = []int{400}
					}
					seen := len(p.received())
					got := refusal(t, listen, tc.bytes+smuggled)
					if !slices.Contains(tc.status, got) {
						t.Errorf("answered %d, want one of %d", got, tc.status)
					}
					fence(t, listen, p)
					if got, _, _ := strings.Cut(p.received()[seen:], "GET /fence "); got != "" {
						t.Errorf("the pod received %.200q", got)
					}
				})
			}
		})
	}
}

// refusal sends bytes and returns the status of the answer. The answer has to be the only one, and the connection has to end after
// it.
func refusal(t *testing.T, listen int32, bytes string) int {
	t.Helper()
	c := connect(t, listen)
	_ = c.SetReadDeadline(time.Now().Add(soon))
	go func() { _, _ = io.WriteString(c, bytes) }() // an early refusal does not read everything
	m, err := readHead(c.r)
	if err != nil {
		t.Errorf("no answer: %v", err)
		return 0
	}
	rest, err := io.ReadAll(c.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection was not closed")
	}
	if strings.Contains(string(rest), "HTTP/1.") {
		t.Errorf("another answer came behind %q: %.200q", m.start, rest)
	}
	return m.status()
}

// fence sends a good request on a connection of its own. When it is answered, everything earlier has arrived.
func fence(t *testing.T, listen int32, p *wirePod) {
	t.Helper()
	c := connect(t, listen)
	defer c.Close()
	c.send("GET /fence HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	c.want(200, "fine")
	if all := p.requests(); all[len(all)-1].path() != "/fence" {
		t.Errorf("the pod received %q last", all[len(all)-1].start)
	}
}

// Requests that only look odd are served, and so is what is pipelined after them.
func TestNotSmuggling(t *testing.T) {
	p := newWirePod(t, answering(func(m *message) string { return ok(m.path() + " " + m.body) }))
	_, listen := serving(t, api.ProtocolHTTP, p.addr)
	const chunks = "5\r\nhello\r\n0\r\n\r\n"
	chunked := func(body string) string { return post("Transfer-Encoding: chunked\r\n", body) }
	for name, bytes := range map[string]string{
		"length":                   post("Content-Length: 5\r\n", "hello"),
		"length with zeros":        post("Content-Length: 0005\r\n", "hello"),
		"spaces around length":     post("Content-Length:  \t5 \t\r\n", "hello"),
		"no space before length":   post("CONTENT-length:5\r\n", "hello"),
		"chunked":                  chunked(chunks),
		"chunked in upper case":    post("TRANSFER-ENCODING: CHUNKED\r\n", chunks),
		"spaces around chunked":    post("Transfer-Encoding: \t chunked \t\r\n", chunks),
		"chunk extension":          chunked("5;name=value\r\nhello\r\n0;last\r\n\r\n"),
		"chunk extension in quote": chunked("5;name=\"a; b\\\" c\"\r\nhello\r\n0\r\n\r\n"),
		"space after chunk sizes":  chunked("5 \r\nhello\r\n0\t\r\n\r\n"),
		"space, then extension":    chunked("5 \t;a\r\nhello\r\n0 ;b\r\n\r\n"),
		"chunk size with zeros":    chunked("0005\r\nhello\r\n000\r\n\r\n"),
		"many chunks":              chunked("1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n2\r\nlo\r\n0\r\n\r\n"),
		"trailer":                  chunked("5\r\nhello\r\n0\r\nSum: 1\r\n\r\n"),
		"empty value":              post("X:\r\nContent-Length: 5\r\n", "hello"),
		"tab and high bytes":       post("X: a\tb\xe4\xff\r\nContent-Length: 5\r\n", "hello"),
		"odd name":                 post("!#$%&'*+-.^_`|~9: x\r\nContent-Length: 5\r\n", "hello"),
		"own method":               "M-SEARCH_2 /bad HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
		"lower-case method":        "post /bad HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
		"GET with a body":          "GET /bad HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
		"empty Host":               "POST /bad HTTP/1.1\r\nHost:\r\nContent-Length: 5\r\n\r\nhello",
		"Host with port":           "POST /bad HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 5\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, listen)
			c.send(bytes + "GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
			c.want(200, "/bad hello")
			c.want(200, "/next ")
		})
	}
}

// If RFC 9112 allows a reader to refuse or to understand, both are safe, and nothing in between is.
func TestRefusedOrUnderstood(t *testing.T) {
	p := newWirePod(t, answering(func(m *message) string { return ok(m.path() + " " + m.body) }))
	_, listen := serving(t, api.ProtocolHTTP, p.addr)
	chunked := func(body string) string { return post("Transfer-Encoding: chunked\r\n", body) }
	for name, bytes := range map[string]string{
		"space before the extension":  chunked("5 ;name=value\r\nhello\r\n0\r\n\r\n"),
		"spaces in the extension":     chunked("5; name = value\r\nhello\r\n0\r\n\r\n"),
		"tabs around the extension":   chunked("5\t;\tname\r\nhello\r\n0\r\n\r\n"),
		"empty extension":             chunked("5;\r\nhello\r\n0\r\n\r\n"),
		"many zeros before the size":  chunked(strings.Repeat("0", 40) + "5\r\nhello\r\n0\r\n\r\n"),
		"a later minor version":       "POST /bad HTTP/1.2\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
		"fragment in the target":      "POST /bad#x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
		"high byte in the target":     "POST /bad\xe4 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
		"Host that is too long":       "POST /bad HTTP/1.1\r\nHost: " + strings.Repeat("h", 300) + "\r\nContent-Length: 5\r\n\r\nhello",
		"port that is out of range":   "POST /bad HTTP/1.1\r\nHost: h:99999\r\nContent-Length: 5\r\n\r\nhello",
		"CONNECT where HTTP is fixed": "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nContent-Length: 5\r\n\r\nhello",
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, listen)
			_ = c.SetDeadline(time.Now().Add(soon))
			go func() { _, _ = io.WriteString(c, bytes+"GET /next HTTP/1.1\r\nHost: h\r\n\r\n") }()
			m, err := readHead(c.r)
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal("neither refused nor understood")
				}
				return
			}
			if code := m.status(); code >= 400 {
				if rest, err := io.ReadAll(c.r); isTimeout(err) || strings.Contains(string(rest), "/next") {
					t.Errorf("refused with %d, and then %q, %v", code, rest, err)
				}
				return
			}
			if err := readBody(c.r, m, true); err != nil || !strings.HasSuffix(m.body, " hello") {
				t.Errorf("got %q, %v", m.body, err)
			}
			c.want(200, "/next ")
		})
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// A bad request after good ones is refused, and the good ones are answered.
func TestSmugglingBehindGoodRequests(t *testing.T) {
	p := newWirePod(t, answering(func(m *message) string { return ok(m.path()) }))
	_, listen := serving(t, api.ProtocolAuto, p.addr)
	c := connect(t, listen)
	c.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n" + "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxy" +
		post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello") + smuggled)
	c.want(200, "/1")
	c.want(200, "/2")
	if m := c.answer(); m.status() != 400 {
		t.Errorf("got %q", m.start)
	}
	c.ends()
	if got := p.requests(); len(got) != 2 || strings.Contains(p.received(), "smuggled") || strings.Contains(p.received(), "/bad") {
		t.Errorf("the pod received %q", p.received())
	}
}
