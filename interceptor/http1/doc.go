// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package http1 reads the heads and the framing of HTTP/1.1 messages (RFC 9112) in place: a Request or a Response is a
// list of positions in the buffer that its bytes came in, so that a proxy can pass on nearly the same bytes, and
// parsing allocates nothing once its list of fields has grown.
//
// # What is parsed
//
// The start line; of every field its name, value and end; and the meaning of those that say where a message ends and
// what becomes of its connection: Content-Length, Transfer-Encoding, Connection, Upgrade, Expect and Host. A chunked
// body is followed byte by byte by Chunked, which finds its end and separates its data from its framing.
//
// # Why that is safe
//
// Requests are smuggled where two parsers of one stream disagree about where a message ends. Here each byte of a
// request's head is checked against the grammar and there is one reading or none:
//
//   - Lines end in CRLF. A lone CR or LF, a NUL or another control byte, and a folded line are errors, not whitespace.
//   - A field's name is a token and the colon follows at once.
//   - The length is given by one Content-Length of digits alone, or by one Transfer-Encoding that is "chunked", or the
//     message has no body. Both, or either one twice, is an error even if they agree.
//   - A request of HTTP/1.1 has one Host. One of HTTP/1.0 has no Transfer-Encoding.
//   - The size of a chunk is hexadecimal digits, its data ends in CRLF, and trailers are fields as above. Space behind a size
//     is allowed, and is not passed on.
//
// What has passed goes out with the same bytes but for that, so that an app that reads more generously reads the same. Answers of
// apps follow the same rules, with three exceptions. Repair fixes lines that are folded or end in LF, which old apps still
// write. Values may have control bytes other than NUL, CR and LF. Lines of chunks that end in LF go out with CRLF. This is
// safe because the recipient has asked for one answer, and cannot be made to take one for two.
//
// It knows nothing of connections, imports nothing of this project and keeps no state but what it returns.
package http1
