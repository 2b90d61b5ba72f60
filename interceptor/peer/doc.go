// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package peer adds up what all interceptors count: each one sends its own counts to its subscribers (Server) and
// subscribes to every other one (Pool). A peer's counts hold for as long as the stream from it lasts.
package peer
