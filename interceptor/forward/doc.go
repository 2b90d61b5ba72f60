// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package forward is the engine: it carries requests and connections from clients to pods. Which pod, and how long to
// wait for one, is package route's business; how the bytes get there is this package's alone.
//
// A request of HTTP/1.1 goes this way, in one goroutine for each client connection:
//
//	next      reads until http1 has parsed a head, or refuses it            conn.go
//	exchange  counts it, has a pod chosen, and tries again where it may     exchange.go
//	carry     sends it on a connection of the pod's pool                    pool.go, sock.go
//	relay     passes the answer on: head, body, and what comes before them  relay.go, flow.go
//	settle    gives the connection back, and goes on with the next request
//
// It waits without a buffer, reads a message's head into one, rewrites it where that is needed and nowhere else
// (rewrite.go), and writes it out with what came behind it. Nothing of that allocates. A body that has not come yet is
// carried by a second goroutine (upload.go), since apps may answer before they have read it. What is large is moved by
// the kernel (splice_linux.go). An upgraded connection becomes two flows of bytes, as any TCP connection is from the
// beginning (tcp.go).
//
// A browser that opens a page and waits for a while is answered with the waiting page (waiting.go). That follows the start by
// polls, which wait like requests and are answered here.
//
// A request of a probe's goes the same way, but that it is not counted and not held (own.go): if no pod is ready it gets an
// answer of ours at once.
//
// Time-outs are no timers. A connection says what it waits for and since when (state.go), and one goroutine of the
// engine looks at all of them several times a second. It also has a client watched whose answer takes longer, so that
// its going away ends the request.
//
// HTTP/2 is net/http's (http2.go): a client that speaks it shares one connection among its requests, so that what a
// request costs there matters less, and gRPC wants every corner of it.
package forward
