// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package peer adds up the counts of all interceptors. Each interceptor sends its own counts to its subscribers (Server) and
// subscribes to every other interceptor (Pool). A peer's counts hold as long as the stream from the peer lasts.
package peer
