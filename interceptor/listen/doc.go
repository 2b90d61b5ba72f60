// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package listen opens the port of each route and gives the connections that arrive there to the route's forward.Server. It bounds
// the number of connections, and drains when a route or the whole interceptor ends.
package listen
