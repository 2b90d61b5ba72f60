// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package conformance puts an interceptor between clients and servers that others have written to test protocols: the
// suite of connectrpc.com/conformance, for Connect, gRPC and gRPC-Web by HTTP/1.1 and HTTP/2, and the interop cases of
// grpc-go. It is a module of its own, so that what it needs is kept out of what is shipped.
package conformance
