// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package headers decides which header fields pass on, and who the visitor is, for both versions of HTTP. It is pure: the fields
// that came in, the fields that go out.
//
// All fields of a request go on as they came, but for
//
//   - those that speak of one connection (RFC 9110, 7.6.1), which end here: Connection and the fields that it names,
//     Keep-Alive, Proxy-Connection, Proxy-Authorization, TE except "trailers", and Upgrade with HTTP2-Settings unless the
//     connection is upgraded;
//   - X-Forwarded-For, which ends with the address that the request came from, after as many of the hops before it as are
//     trusted;
//   - X-Forwarded-Host and X-Forwarded-Proto, which go on if any hop is trusted. Without trust, and where they are missing,
//     they are the request's Host and http.
//
// Of an answer the fields that speak of one connection end here too: Connection and the fields that it names, Keep-Alive,
// Proxy-Connection, Proxy-Authenticate, and Upgrade unless it is the point of the answer.
//
// HTTP/1.1 is bytes in and bytes out, and allocates nothing; HTTP/2 is a map in and a map out. Both follow the same two
// functions, ofRequest and ofAnswer. The package imports http1, which names the fields.
package headers
