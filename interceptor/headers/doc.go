// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package headers decides which header fields pass, and who the visitor is, for both versions of HTTP. It is pure: fields in, fields
// out.
//
// All fields of a request pass unchanged, except
//
//   - fields about one connection (RFC 9110, 7.6.1), which end here: Connection and the fields that it names, Keep-Alive,
//     Proxy-Connection, Proxy-Authorization, TE except "trailers", and Upgrade with HTTP2-Settings unless the connection is
//     upgraded;
//   - X-Forwarded-For, which ends with the address from which the request came, after as many earlier hops as are trusted;
//   - X-Forwarded-Host and X-Forwarded-Proto, which pass if any hop is trusted. Without trust, or if they are missing, they are the
//     request's Host and http.
//
// The fields of an answer about one connection end here too: Connection and the fields that it names, Keep-Alive, Proxy-Connection,
// Proxy-Authenticate, and Upgrade unless the answer is about the upgrade.
//
// HTTP/1.1 is bytes in and bytes out, and allocates nothing. HTTP/2 is a map in and a map out. Both use the same two functions,
// ofRequest and ofAnswer. The package imports http1, which names the fields.
package headers
