// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package guard stands before the gRPC services of an interceptor: it says who may call which of them, and bounds what a caller can
// make us keep.
//
// listener.go bounds connections, before a handshake. guard.go authorizes calls by the identity in the client's certificate.
// quota.go bounds the size of keys and the number of streams: a tenant may create ScaledObjects, and KEDA opens a stream for each.
package guard
