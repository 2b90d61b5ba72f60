// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package certs provides the webhook's serving certificate, which all replicas share in one Secret. There are two sources. With
// self-managed certificates, the replicas write and renew the Secret and publish the CA to the API server. With cert-manager, they
// only read what cert-manager writes.
//
// manager.go serves a certificate and watches for changes, whatever the source. self.go keeps the Secret and the webhook
// configuration's caBundle in sync. authority.go is pure (no client, no clock): it says what a valid Secret contains and what is due
// next. certmanager.go reads cert-manager's Secret, and certmanager_status.go says why the Secret has no certificate yet. remove.go
// deletes what an uninstall would leave behind.
//
// The package may import client-go, controller-runtime, logr and cert-manager's API types, and nothing of this project.
package certs
