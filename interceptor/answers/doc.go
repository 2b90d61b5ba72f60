// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package answers makes the answers that are not the app's: one table from errors to answers, the waiting page, and the answers to
// its polls. An Answer does not know how it is sent; there is one writer for HTTP/1.1 (http1.go) and one for HTTP/2
// (http2.go), which speaks gRPC to clients that do.
//
// It imports http1, headers, page and route, and knows no connections.
package answers
