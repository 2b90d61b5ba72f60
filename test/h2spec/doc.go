// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package h2spec runs the conformance tests for HTTP/2 of github.com/summerwind/h2spec against an interceptor, over
// HTTP/2 without TLS. It is a module of its own, so that what it needs is kept out of what is shipped.
package h2spec
