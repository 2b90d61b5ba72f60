// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package wire handles connections and their bytes, but knows nothing about requests. It waits without a buffer until something
// arrives, checks whether a connection is still good before it is used, moves large bodies within the kernel, and sees from the first
// bytes what a connection speaks.
//
//	Sock     a TCP connection, also read and written by its descriptor   sock.go, rawio_linux.go, tcpinfo_linux.go
//	Buffer   borrowed memory                                             buffer.go
//	Body     where a message's body ends                                 body.go
//	Flow     bytes from one Sock to another                              flow.go, splice_linux.go
//	Sniffer  HTTP or not                                                 sniff.go
//
// The package imports nothing of this project except http1, which knows chunks and tokens.
package wire
