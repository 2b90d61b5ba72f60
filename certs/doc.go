// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package certs gives the webhook its serving certificate, which all replicas share in one Secret. There are two sources
// of it: by itself it needs no step of the user's, and writes and renews the Secret and tells the API server the CA; with
// cert-manager it only reads what that writes.
//
// manager.go serves a certificate and watches, whatever its source. self.go keeps the Secret and the webhook
// configuration's caBundle in step, as authority.go says what a valid Secret holds and what is due next (pure: no client,
// no clock). certmanager.go reads cert-manager's Secret, and remove.go has nothing of it stay behind.
//
// It may import client-go, controller-runtime and logr, and nothing of this project.
package certs
