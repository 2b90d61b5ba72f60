// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package mtls is how the parts of one installation recognize each other on the interceptors' gRPC port. Each part has a certificate
// with its Identity, all from one authority that issues no others. The server side has no identity from the network: who has no such
// certificate gets no connection, and who has one gets the services of its identity.
//
// The certificates come from somewhere else: main connects a Store with what watches the Secrets. Both planes use this package, so it
// imports nothing of this project, and nothing of Kubernetes.
package mtls
