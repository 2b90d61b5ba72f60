// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package webhook is admission: the only writer of users' Services and Ingresses, and the guard of replica counts. Managed
// fields are computed before admission runs, so its changes are attributed to nobody and never conflict with the chart's owner.
//
// It is thin: it decodes, and asks package injector what to do. It makes no call to the API server.
package webhook
