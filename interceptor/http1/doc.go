// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package http1 parses the heads and the framing of HTTP/1.1 messages (RFC 9112) in place. A Request or a Response is a list of
// positions in the buffer that was parsed. So a proxy can pass on nearly the same bytes, and parsing allocates nothing once the list
// of fields has grown.
//
// # What is parsed
//
// The package parses the start line, and the name, value and end of every field. It interprets the fields that say where a message
// ends and what happens to its connection: Content-Length, Transfer-Encoding, Connection, Upgrade, Expect and Host. Chunked follows a
// chunked body byte by byte, finds its end, and separates its data from its framing.
//
// # Why that is safe
//
// Requests can be smuggled if two parsers of one stream disagree about where a message ends. This package checks each byte of a
// request's head against the grammar, and has one reading or none:
//
//   - Lines end in CRLF. A lone CR or LF, a NUL or another control byte, and a folded line are errors, not whitespace.
//   - A field's name is a token and the colon follows at once.
//   - The length is given by one Content-Length of digits alone, or by one Transfer-Encoding that is "chunked", or the
//     message has no body. To have both, or either of them twice, is an error even if they agree.
//   - An HTTP/1.1 request has exactly one Host. An HTTP/1.0 request has no Transfer-Encoding.
//   - The size of a chunk is hexadecimal digits, its data ends in CRLF, and trailers are fields as above. Space after a size
//     is allowed, and is not passed on.
//
// What is accepted is passed on with the same bytes, except for that space, so that an app with a more generous parser reads the
// same. Answers of apps follow the same rules, with three exceptions. Repair fixes lines that are folded or end in LF, which old apps
// still write. Values may have control bytes other than NUL, CR and LF. Lines of chunks that end in LF are passed on with CRLF. This
// is safe because the recipient expects one answer, and cannot be made to take one answer for two.
//
// The package knows nothing about connections, imports nothing of this project and keeps no state except what it returns.
package http1
