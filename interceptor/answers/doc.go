// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package answers makes the answers that do not come from the app: one table from errors to answers, the waiting page, and the
// answers to its polls. An Answer does not know how it is sent. There is one writer for HTTP/1.1 (http1.go) and one for HTTP/2
// (http2.go), which answers gRPC clients in gRPC.
//
// The package imports http1, headers, page and route, and knows nothing about connections.
package answers
