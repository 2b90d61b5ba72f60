// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook is admission: the only writer of users' Services and Ingresses, and the guard of replica counts. The API server
// computes managed fields before admission runs. So its changes have no owner, and never conflict with the chart's owner.
//
// The package is thin: it decodes, and asks package injector what to do. It makes no call to the API server.
package webhook
