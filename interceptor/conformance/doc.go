// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package conformance tests a whole interceptor from outside: clients before it, pods behind it, and a cluster that says what the
// test wants. It holds it to the protocols (HTTP/1.1 and HTTP/2 as other proxies and RFCs have them, gRPC, upgrades, TCP), to what
// is promised of waking, holding, counting and draining, and to leaving nothing behind.
package conformance
