// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package conformance tests a whole interceptor from outside, with clients in front of it, pods behind it, and a cluster that says
// what the test wants. It tests the protocols (HTTP/1.1 and HTTP/2 as in the RFCs and other proxies, gRPC, upgrades, TCP), the
// promises about waking, holding, counting and draining, and that nothing leaks.
package conformance
