// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package forward is the engine: it carries requests and connections from clients to pods. Which pod, and how long to
// wait for one, is package route's business; how bytes get from a connection to another is package wire's; which fields pass is
// package headers', and what we say in an app's place package answers'.
//
// A Server has the connections of one route, and finds out what they speak (server.go). Whatever that is, a request, or a
// connection of bytes, is a call, and the core of all protocols does three things with it:
//
//	serve    decides what it counts for, and counts it            call.go
//	pick     chooses a pod, and holds the request until there is one  call.go
//	attempt  has a pod answer it, or another one where that is safe  attempts.go
//
// What differs is how a request is read, sent and answered. HTTP/1.1 is this package's own, in one goroutine for each
// client connection:
//
//	next    reads until http1 has parsed a head, or refuses it            conn.go
//	attend  writes the head as it goes out, and attempts                  request1.go
//	carry   sends it on a connection of the pod's pool                    request1.go, pool.go
//	relay   passes the answer on: head, body, and what comes before them  relay.go
//	finish  gives the connection back, and goes on with the next request  relay.go, fate.go
//
// Nothing of that allocates. A body that has not come yet is carried by a second goroutine (upload.go), since apps may answer
// before they have read it. An upgraded connection becomes two flows of bytes (tunnel.go), as any TCP connection is from the
// beginning (opening.go).
//
// HTTP/2 is net/http's (http2.go, stream.go, attempt2.go): a client that speaks it shares one connection among its requests, so
// that what a request costs there matters less, and gRPC wants every corner of it.
//
// A browser that opens a page and waits for a while is answered with the waiting page (waiting.go). That follows the start by
// polls, which wait like requests and are answered here. A probe's request is neither counted nor held: if no pod is ready it is
// answered by us at once.
//
// Time-outs are no timers. A connection says what it waits for and since when (watch.go), and one goroutine of the
// engine looks at all of them several times a second. It also has a client watched whose answer takes longer, so that
// its going away ends the request.
package forward
