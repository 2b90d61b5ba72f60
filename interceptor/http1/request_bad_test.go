// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

// badRequests are malformed heads, with the error.
func badRequests() map[string]struct {
	head string
	want MalformedError
} {
	const host = "Host: h\r\n"
	line := func(l string) string { return l + "\r\n" + host + "\r\n" }
	with := func(fields string) string { return "POST / HTTP/1.1\r\n" + host + fields + "\r\n" }
	return map[string]struct {
		head string
		want MalformedError
	}{
		"five empty lines":          {strings.Repeat("\r\n", 5) + line("GET / HTTP/1.1"), ErrManyEmptyLines},
		"CR alone before":           {"\r" + line("GET / HTTP/1.1"), ErrBadMethod},
		"CR, CR, LF before":         {"\r\r\n" + line("GET / HTTP/1.1"), ErrBadMethod},
		"space before":              {line(" GET / HTTP/1.1"), ErrBadMethod},
		"method without the rest":   {line("GET"), ErrBadStartLine},
		"method and LF":             {"GET\n" + host + "\r\n", ErrBadStartLine},
		"method that is no token":   {line("G@T / HTTP/1.1"), ErrBadMethod},
		"method with colon":         {line("GET: / HTTP/1.1"), ErrBadMethod},
		"tab behind the method":     {line("GET\t/ HTTP/1.1"), ErrBadMethod},
		"no version":                {line("GET /"), ErrBadStartLine},
		"no version, LF":            {"GET /\n" + host + "\r\n", ErrBadStartLine},
		"two spaces":                {line("GET  / HTTP/1.1"), ErrBadStartLine},
		"two spaces before version": {line("GET /  HTTP/1.1"), ErrBadStartLine},
		"space behind the version":  {line("GET / HTTP/1.1 "), ErrBadStartLine},
		"empty target":              {line("GET  HTTP/1.1"), ErrBadTarget},
		"tab in the target":         {line("GET /\ta HTTP/1.1"), ErrBadTarget},
		"NUL in the target":         {line("GET /\x00 HTTP/1.1"), ErrBadTarget},
		"DEL in the target":         {line("GET /\x7f HTTP/1.1"), ErrBadTarget},
		"relative target":           {line("GET a HTTP/1.1"), ErrBadTarget},
		"query alone":               {line("GET ?a HTTP/1.1"), ErrBadTarget},
		"asterisk and more":         {line("GET *a HTTP/1.1"), ErrBadTarget},
		"authority":                 {line("GET a:80 HTTP/1.1"), ErrBadTarget},
		"tunnel":                    {line("CONNECT a:80 HTTP/1.1"), ErrConnectMethod},
		"tunnel to a path":          {line("CONNECT / HTTP/1.1"), ErrConnectMethod},
		"scheme alone":              {line("GET http: HTTP/1.1"), ErrBadTarget},
		"scheme and slashes":        {line("GET http:// HTTP/1.1"), ErrBadTarget},
		"scheme without slashes":    {line("GET http:/a/b HTTP/1.1"), ErrBadTarget},
		"other scheme":              {line("GET ftp://a/ HTTP/1.1"), ErrBadTarget},
		"colon first":               {line("GET ://a/ HTTP/1.1"), ErrBadTarget},
		"version 2.0":               {line("GET / HTTP/2.0"), ErrBadVersion},
		"version 1.2":               {line("GET / HTTP/1.2"), ErrBadVersion},
		"version 0.9":               {line("GET / HTTP/0.9"), ErrBadVersion},
		"version 9.9":               {line("GET / HTTP/9.9"), ErrBadVersion},
		"version in two digits":     {line("GET / HTTP/1.10"), ErrBadStartLine},
		"version 01.1":              {line("GET / HTTP/01.1"), ErrBadStartLine},
		"version 2":                 {line("GET / HTTP/2"), ErrBadStartLine},
		"version with comma":        {line("GET / HTTP/1,1"), ErrBadStartLine},
		"version in hex":            {line("GET / HTTP/1.a"), ErrBadStartLine},
		"version in lower case":     {line("GET / http/1.1"), ErrBadStartLine},
		"other protocol":            {line("GET / ICY/1.1"), ErrBadStartLine},
		"LF behind the version":     {"GET / HTTP/1.1\n" + host + "\r\n", ErrBadStartLine},
		"LF behind version 2.0":     {"GET / HTTP/2.0\n" + host + "\r\n", ErrBadStartLine},
		"CR behind the version":     {"GET / HTTP/1.1\r" + host + "\r\n", ErrBadStartLine},
		"preface of HTTP/2":         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ErrBadVersion},

		"name with space behind":   {with("A : b\r\n"), ErrBadFieldName},
		"name with tab behind":     {with("A\t: b\r\n"), ErrBadFieldName},
		"name with space inside":   {with("A B: c\r\n"), ErrBadFieldName},
		"empty name":               {with(": b\r\n"), ErrBadFieldName},
		"no colon":                 {with("A\r\n"), ErrBadLineEnd},
		"no colon, LF":             {with("A\n"), ErrBadLineEnd},
		"name with NUL":            {with("A\x00: b\r\n"), ErrBadFieldName},
		"name with high byte":      {with("\xc4: b\r\n"), ErrBadFieldName},
		"name in brackets":         {with("(A): b\r\n"), ErrBadFieldName},
		"value with NUL":           {with("A: b\x00c\r\n"), ErrBadFieldValue},
		"value with DEL":           {with("A: b\x7f\r\n"), ErrBadFieldValue},
		"value with escape":        {with("A: \x1b[1m\r\n"), ErrBadFieldValue},
		"value with vertical tab":  {with("A: \x0bb\r\n"), ErrBadFieldValue},
		"value with CR":            {with("A: b\rc\r\n"), ErrBadLineEnd},
		"value with CR at the end": {with("A: b\r\r\n"), ErrBadLineEnd},
		"value with LF":            {with("A: b\n"), ErrBadLineEnd},
		"LF as the last line":      {"GET / HTTP/1.1\r\n" + host + "\n", ErrBadLineEnd},
		"CR as the last line":      {"GET / HTTP/1.1\r\n" + host + "\rA: b\r\n\r\n", ErrBadLineEnd},
		"folded":                   {with("A: b\r\n c\r\n"), ErrFoldedField},
		"folded by tab":            {with("A: b\r\n\tc\r\n"), ErrFoldedField},
		"folded, empty":            {with("A: b\r\n \r\n"), ErrFoldedField},
		"first field folded":       {"GET / HTTP/1.1\r\n " + host + "\r\n", ErrFoldedField},

		"no host":                 {"GET / HTTP/1.1\r\n\r\n", ErrMissingHost},
		"no host, absolute":       {"GET http://h/ HTTP/1.1\r\n\r\n", ErrMissingHost},
		"two hosts":               {with("Host: i\r\n"), ErrRepeatedHost},
		"same host twice":         {with("host: h\r\n"), ErrRepeatedHost},
		"two hosts by 1.0":        {"GET / HTTP/1.0\r\n" + host + host + "\r\n", ErrRepeatedHost},
		"host with space":         {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", ErrBadHost},
		"host with tab":           {"GET / HTTP/1.1\r\nHost: a\tb\r\n\r\n", ErrBadHost},
		"host with comma":         {"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", ErrBadHost},
		"host with slash":         {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ErrBadHost},
		"host with backslash":     {"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", ErrBadHost},
		"host with query":         {"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", ErrBadHost},
		"host with fragment":      {"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", ErrBadHost},
		"host with user":          {"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", ErrBadHost},
		"host with markup":        {"GET / HTTP/1.1\r\nHost: <a>\r\n\r\n", ErrBadHost},
		"host in quotes":          {"GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n", ErrBadHost},
		"bad host by 1.0":         {"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", ErrBadHost},
		"long connection":         {with("Connection: " + strings.Repeat("a,", maxConnection/2) + "\r\n"), ErrConnectionTooLong},
		"many connections":        {with(strings.Repeat("Connection: close, aa\r\n", maxConnection/10+1)), ErrConnectionTooLong},
		"length empty":            {with("Content-Length:\r\n"), ErrBadContentLength},
		"length negative":         {with("Content-Length: -1\r\n"), ErrBadContentLength},
		"length with plus":        {with("Content-Length: +1\r\n"), ErrBadContentLength},
		"length in hex":           {with("Content-Length: 0x1\r\n"), ErrBadContentLength},
		"length with space":       {with("Content-Length: 1 1\r\n"), ErrBadContentLength},
		"length with underscore":  {with("Content-Length: 1_0\r\n"), ErrBadContentLength},
		"lengths in a list":       {with("Content-Length: 1, 1\r\n"), ErrBadContentLength},
		"length of 19 digits":     {with("Content-Length: 1000000000000000000\r\n"), ErrBadContentLength},
		"length of 19 zeros":      {with("Content-Length: 0000000000000000000\r\n"), ErrBadContentLength},
		"length twice":            {with("Content-Length: 1\r\nContent-Length: 1\r\n"), ErrRepeatedContentLength},
		"length 0 twice":          {with("Content-Length: 0\r\nContent-Length: 0\r\n"), ErrRepeatedContentLength},
		"two lengths":             {with("Content-Length: 1\r\nContent-Length: 2\r\n"), ErrRepeatedContentLength},
		"length and chunked":      {with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), ErrLengthAndEncoding},
		"chunked and length 0":    {with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), ErrLengthAndEncoding},
		"chunked twice":           {with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), ErrRepeatedTransferEncoding},
		"chunked and gzip, lines": {with("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"), ErrRepeatedTransferEncoding},
		"gzip":                    {with("Transfer-Encoding: gzip\r\n"), ErrUnknownTransferEncoding},
		"identity":                {with("Transfer-Encoding: identity\r\n"), ErrUnknownTransferEncoding},
		"two unknown codings":     {with("Transfer-Encoding: gzip, br\r\n"), ErrUnknownTransferEncoding},
		"gzip, chunked":           {with("Transfer-Encoding: gzip, chunked\r\n"), ErrBadTransferEncoding},
		"chunked twice in a list": {with("Transfer-Encoding: chunked, chunked\r\n"), ErrBadTransferEncoding},
		"comma, chunked":          {with("Transfer-Encoding: ,chunked\r\n"), ErrBadTransferEncoding},
		"chunked, comma":          {with("Transfer-Encoding: chunked,\r\n"), ErrBadTransferEncoding},
		"chunked with parameter":  {with("Transfer-Encoding: chunked;a=b\r\n"), ErrBadTransferEncoding},
		"chunked in quotes":       {with("Transfer-Encoding: \"chunked\"\r\n"), ErrBadTransferEncoding},
		"encoding empty":          {with("Transfer-Encoding: \r\n"), ErrBadTransferEncoding},
		"encoding with high byte": {with("Transfer-Encoding: \xa0chunked\r\n"), ErrBadTransferEncoding},
		"chunked by 1.0":          {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ErrEncodingInHTTP10},
		"chunked and length, 1.0": {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", ErrLengthAndEncoding},
	}
}

func TestBadRequest(t *testing.T) {
	for name, tc := range badRequests() {
		t.Run(name, func(t *testing.T) {
			n, err := usedRequest(t).Parse([]byte(tc.head))
			if n != 0 || !errors.Is(err, tc.want) {
				t.Errorf("got %d, %v; want %v", n, err, tc.want)
			}
		})
	}
}

func TestStatusOfMalformed(t *testing.T) {
	special := map[MalformedError]int{
		ErrBadVersion:              http.StatusHTTPVersionNotSupported,
		ErrUnknownTransferEncoding: http.StatusNotImplemented,
		ErrConnectMethod:           http.StatusNotImplemented,
		ErrHeadTooLarge:            http.StatusRequestHeaderFieldsTooLarge,
		ErrConnectionTooLong:       http.StatusRequestHeaderFieldsTooLarge,
		ErrTrailerTooLarge:         http.StatusRequestHeaderFieldsTooLarge,
	}
	texts := map[string]MalformedError{}
	for m := ErrBadStartLine; m <= ErrBadTrailer; m++ {
		want, ok := special[m]
		if !ok {
			want = http.StatusBadRequest
		}
		if got := m.Status(); got != want {
			t.Errorf("%v: status %d, want %d", m, got, want)
		}
		text := m.Error()
		if other, twice := texts[text]; twice || text == MalformedError(0).Error() {
			t.Errorf("%d and %d are both %q", m, other, text)
		}
		texts[text] = m
		// The text is in the body of an answer, and must not look like another answer.
		if strings.ContainsAny(text, "\r\n") || strings.Contains(text, "HTTP/") {
			t.Errorf("%q looks like the beginning of an answer", text)
		}
	}
	if got := MalformedError(200).Error(); got != MalformedError(0).Error() {
		t.Errorf("one that does not exist says %q", got)
	}
}
