// Package certs gives the webhook its serving certificate and the API server the CA to verify it with, without a step
// for the user: all replicas share one Secret, which the first of them writes and any of them renews.
//
// authority.go is what a valid Secret holds and what is due next (pure: no client, no clock), manager.go is what keeps
// the Secret, the certificate served and the webhook configuration's caBundle in step.
//
// It may import client-go, controller-runtime and logr, and nothing of this project.
package certs
