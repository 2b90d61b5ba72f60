// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package listen opens the port of each route and hands what arrives there to the forwarding engine: it sniffs, bounds the
// number of connections, and lets requests finish when a route or the whole interceptor ends.
package listen
