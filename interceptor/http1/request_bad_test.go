// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

// badRequests are heads that are none, with what is wrong.
func badRequests() map[string]struct {
	head string
	want Malformed
} {
	const host = "Host: h\r\n"
	line := func(l string) string { return l + "\r\n" + host + "\r\n" }
	with := func(fields string) string { return "POST / HTTP/1.1\r\n" + host + fields + "\r\n" }
	return map[string]struct {
		head string
		want Malformed
	}{
		"five empty lines":          {strings.Repeat("\r\n", 5) + line("GET / HTTP/1.1"), ManyEmptyLines},
		"CR alone before":           {"\r" + line("GET / HTTP/1.1"), BadMethod},
		"CR, CR, LF before":         {"\r\r\n" + line("GET / HTTP/1.1"), BadMethod},
		"space before":              {line(" GET / HTTP/1.1"), BadMethod},
		"method without the rest":   {line("GET"), BadStartLine},
		"method and LF":             {"GET\n" + host + "\r\n", BadStartLine},
		"method that is no token":   {line("G@T / HTTP/1.1"), BadMethod},
		"method with colon":         {line("GET: / HTTP/1.1"), BadMethod},
		"tab behind the method":     {line("GET\t/ HTTP/1.1"), BadMethod},
		"no version":                {line("GET /"), BadStartLine},
		"no version, LF":            {"GET /\n" + host + "\r\n", BadStartLine},
		"two spaces":                {line("GET  / HTTP/1.1"), BadStartLine},
		"two spaces before version": {line("GET /  HTTP/1.1"), BadStartLine},
		"space behind the version":  {line("GET / HTTP/1.1 "), BadStartLine},
		"empty target":              {line("GET  HTTP/1.1"), BadTarget},
		"tab in the target":         {line("GET /\ta HTTP/1.1"), BadTarget},
		"NUL in the target":         {line("GET /\x00 HTTP/1.1"), BadTarget},
		"DEL in the target":         {line("GET /\x7f HTTP/1.1"), BadTarget},
		"relative target":           {line("GET a HTTP/1.1"), BadTarget},
		"query alone":               {line("GET ?a HTTP/1.1"), BadTarget},
		"asterisk and more":         {line("GET *a HTTP/1.1"), BadTarget},
		"authority":                 {line("GET a:80 HTTP/1.1"), BadTarget},
		"tunnel":                    {line("CONNECT a:80 HTTP/1.1"), ConnectMethod},
		"tunnel to a path":          {line("CONNECT / HTTP/1.1"), ConnectMethod},
		"scheme alone":              {line("GET http: HTTP/1.1"), BadTarget},
		"scheme and slashes":        {line("GET http:// HTTP/1.1"), BadTarget},
		"scheme without slashes":    {line("GET http:/a/b HTTP/1.1"), BadTarget},
		"other scheme":              {line("GET ftp://a/ HTTP/1.1"), BadTarget},
		"colon first":               {line("GET ://a/ HTTP/1.1"), BadTarget},
		"version 2.0":               {line("GET / HTTP/2.0"), BadVersion},
		"version 1.2":               {line("GET / HTTP/1.2"), BadVersion},
		"version 0.9":               {line("GET / HTTP/0.9"), BadVersion},
		"version 9.9":               {line("GET / HTTP/9.9"), BadVersion},
		"version in two digits":     {line("GET / HTTP/1.10"), BadStartLine},
		"version 01.1":              {line("GET / HTTP/01.1"), BadStartLine},
		"version 2":                 {line("GET / HTTP/2"), BadStartLine},
		"version with comma":        {line("GET / HTTP/1,1"), BadStartLine},
		"version in hex":            {line("GET / HTTP/1.a"), BadStartLine},
		"version in lower case":     {line("GET / http/1.1"), BadStartLine},
		"other protocol":            {line("GET / ICY/1.1"), BadStartLine},
		"LF behind the version":     {"GET / HTTP/1.1\n" + host + "\r\n", BadStartLine},
		"LF behind version 2.0":     {"GET / HTTP/2.0\n" + host + "\r\n", BadStartLine},
		"CR behind the version":     {"GET / HTTP/1.1\r" + host + "\r\n", BadStartLine},
		"preface of HTTP/2":         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadVersion},

		"name with space behind":   {with("A : b\r\n"), BadFieldName},
		"name with tab behind":     {with("A\t: b\r\n"), BadFieldName},
		"name with space inside":   {with("A B: c\r\n"), BadFieldName},
		"empty name":               {with(": b\r\n"), BadFieldName},
		"no colon":                 {with("A\r\n"), BadLineEnd},
		"no colon, LF":             {with("A\n"), BadLineEnd},
		"name with NUL":            {with("A\x00: b\r\n"), BadFieldName},
		"name with high byte":      {with("\xc4: b\r\n"), BadFieldName},
		"name in brackets":         {with("(A): b\r\n"), BadFieldName},
		"value with NUL":           {with("A: b\x00c\r\n"), BadFieldValue},
		"value with DEL":           {with("A: b\x7f\r\n"), BadFieldValue},
		"value with escape":        {with("A: \x1b[1m\r\n"), BadFieldValue},
		"value with vertical tab":  {with("A: \x0bb\r\n"), BadFieldValue},
		"value with CR":            {with("A: b\rc\r\n"), BadLineEnd},
		"value with CR at the end": {with("A: b\r\r\n"), BadLineEnd},
		"value with LF":            {with("A: b\n"), BadLineEnd},
		"LF as the last line":      {"GET / HTTP/1.1\r\n" + host + "\n", BadLineEnd},
		"CR as the last line":      {"GET / HTTP/1.1\r\n" + host + "\rA: b\r\n\r\n", BadLineEnd},
		"folded":                   {with("A: b\r\n c\r\n"), FoldedField},
		"folded by tab":            {with("A: b\r\n\tc\r\n"), FoldedField},
		"folded, empty":            {with("A: b\r\n \r\n"), FoldedField},
		"first field folded":       {"GET / HTTP/1.1\r\n " + host + "\r\n", FoldedField},

		"no host":                 {"GET / HTTP/1.1\r\n\r\n", MissingHost},
		"no host, absolute":       {"GET http://h/ HTTP/1.1\r\n\r\n", MissingHost},
		"two hosts":               {with("Host: i\r\n"), RepeatedHost},
		"same host twice":         {with("host: h\r\n"), RepeatedHost},
		"two hosts by 1.0":        {"GET / HTTP/1.0\r\n" + host + host + "\r\n", RepeatedHost},
		"host with space":         {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BadHost},
		"host with tab":           {"GET / HTTP/1.1\r\nHost: a\tb\r\n\r\n", BadHost},
		"host with comma":         {"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", BadHost},
		"host with slash":         {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BadHost},
		"host with backslash":     {"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", BadHost},
		"host with query":         {"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", BadHost},
		"host with fragment":      {"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", BadHost},
		"host with user":          {"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", BadHost},
		"host with markup":        {"GET / HTTP/1.1\r\nHost: <a>\r\n\r\n", BadHost},
		"host in quotes":          {"GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n", BadHost},
		"bad host by 1.0":         {"GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", BadHost},
		"long connection":         {with("Connection: " + strings.Repeat("a,", maxConnection/2) + "\r\n"), ConnectionTooLong},
		"many connections":        {with(strings.Repeat("Connection: close, aa\r\n", maxConnection/10+1)), ConnectionTooLong},
		"length empty":            {with("Content-Length:\r\n"), BadContentLength},
		"length negative":         {with("Content-Length: -1\r\n"), BadContentLength},
		"length with plus":        {with("Content-Length: +1\r\n"), BadContentLength},
		"length in hex":           {with("Content-Length: 0x1\r\n"), BadContentLength},
		"length with space":       {with("Content-Length: 1 1\r\n"), BadContentLength},
		"length with underscore":  {with("Content-Length: 1_0\r\n"), BadContentLength},
		"lengths in a list":       {with("Content-Length: 1, 1\r\n"), BadContentLength},
		"length of 19 digits":     {with("Content-Length: 1000000000000000000\r\n"), BadContentLength},
		"length of 19 zeros":      {with("Content-Length: 0000000000000000000\r\n"), BadContentLength},
		"length twice":            {with("Content-Length: 1\r\nContent-Length: 1\r\n"), RepeatedContentLength},
		"length 0 twice":          {with("Content-Length: 0\r\nContent-Length: 0\r\n"), RepeatedContentLength},
		"two lengths":             {with("Content-Length: 1\r\nContent-Length: 2\r\n"), RepeatedContentLength},
		"length and chunked":      {with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), LengthAndEncoding},
		"chunked and length 0":    {with("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), LengthAndEncoding},
		"chunked twice":           {with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), RepeatedTransferEncoding},
		"chunked and gzip, lines": {with("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"), RepeatedTransferEncoding},
		"gzip":                    {with("Transfer-Encoding: gzip\r\n"), UnknownTransferEncoding},
		"identity":                {with("Transfer-Encoding: identity\r\n"), UnknownTransferEncoding},
		"two unknown codings":     {with("Transfer-Encoding: gzip, br\r\n"), UnknownTransferEncoding},
		"gzip, chunked":           {with("Transfer-Encoding: gzip, chunked\r\n"), BadTransferEncoding},
		"chunked twice in a list": {with("Transfer-Encoding: chunked, chunked\r\n"), BadTransferEncoding},
		"comma, chunked":          {with("Transfer-Encoding: ,chunked\r\n"), BadTransferEncoding},
		"chunked, comma":          {with("Transfer-Encoding: chunked,\r\n"), BadTransferEncoding},
		"chunked with parameter":  {with("Transfer-Encoding: chunked;a=b\r\n"), BadTransferEncoding},
		"chunked in quotes":       {with("Transfer-Encoding: \"chunked\"\r\n"), BadTransferEncoding},
		"encoding empty":          {with("Transfer-Encoding: \r\n"), BadTransferEncoding},
		"encoding with high byte": {with("Transfer-Encoding: \xa0chunked\r\n"), BadTransferEncoding},
		"chunked by 1.0":          {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", EncodingInHTTP10},
		"chunked and length, 1.0": {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", LengthAndEncoding},
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
	special := map[Malformed]int{
		BadVersion:              http.StatusHTTPVersionNotSupported,
		UnknownTransferEncoding: http.StatusNotImplemented,
		ConnectMethod:           http.StatusNotImplemented,
		HeadTooLarge:            http.StatusRequestHeaderFieldsTooLarge,
		ConnectionTooLong:       http.StatusRequestHeaderFieldsTooLarge,
		TrailerTooLarge:         http.StatusRequestHeaderFieldsTooLarge,
	}
	texts := map[string]Malformed{}
	for m := BadStartLine; m <= BadTrailer; m++ {
		want, ok := special[m]
		if !ok {
			want = http.StatusBadRequest
		}
		if got := m.Status(); got != want {
			t.Errorf("%v: status %d, want %d", m, got, want)
		}
		text := m.Error()
		if other, twice := texts[text]; twice || text == Malformed(0).Error() {
			t.Errorf("%d and %d are both %q", m, other, text)
		}
		texts[text] = m
		// It stands in the body of an answer, where it must not be taken for another one.
		if strings.ContainsAny(text, "\r\n") || strings.Contains(text, "HTTP/") {
			t.Errorf("%q looks like the beginning of an answer", text)
		}
	}
	if got := Malformed(200).Error(); got != Malformed(0).Error() {
		t.Errorf("one that does not exist says %q", got)
	}
}
