// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package forward is the engine: it carries requests and connections from clients to pods. Package route decides which pod a request
// goes to, and how long it waits for one. Package wire moves bytes between connections, package headers decides which fields pass,
// and package answers makes the answers that we send ourselves.
//
// A Server has the connections of one route, and finds out what they speak (server.go). Every request, and every connection of bytes,
// is a call. The core of all protocols does three things with a call:
//
//	serve    decides how it counts, and counts it                         call.go
//	pick     chooses a pod, and holds the request until there is one      call.go
//	attempt  sends it to a pod, and to another one where that is safe     attempts.go
//
// The protocols differ in how a request is read, sent and answered. This package has its own HTTP/1.1, with one goroutine for each
// client connection:
//
//	next    reads until http1 has parsed a head, or refuses it            conn.go
//	attend  writes the head as it is sent, and attempts                   request1.go
//	carry   sends it on a connection of the pod's pool                    request1.go, pool.go
//	relay   passes the answer on: informational answers, head, body       relay.go
//	finish  gives the connection back, and goes on with the next request  relay.go, fate.go
//
// None of these steps allocates. If part of a body has not arrived yet, a second goroutine carries it (upload.go), because apps may
// answer before they have read it. An upgraded connection becomes two flows of bytes (tunnel.go). A TCP connection consists of such
// flows from the beginning (opening.go).
//
// HTTP/2 is done by net/http (http2.go, stream.go, attempt2.go). The requests of an HTTP/2 client share one connection, so the cost
// of a request matters less, and gRPC needs every corner of the protocol.
//
// A browser that opens a page and has waited for a while gets the waiting page (waiting.go). The page follows the start by polls,
// which wait like requests and are answered here. A request of a probe is neither counted nor held: if no pod is ready, we answer it
// at once.
//
// Timeouts need no timers. A connection notes what it waits for and since when (watch.go), and one goroutine of the engine checks all
// connections several times a second. If an answer takes longer, that goroutine also has the client watched, so that the request ends
// when the client goes away.
package forward
