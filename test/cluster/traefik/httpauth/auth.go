// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package auth stands in for the fork of go-http-auth that Traefik uses and that the module proxy does not have. It has
// what Traefik's two middlewares for passwords call, and lets nobody in.
package auth

import "net/http"

// A SecretProvider returns what is known of a user's password.
type SecretProvider func(user, realm string) string

// CheckSecret says that the password is wrong.
func CheckSecret(_, _ string) bool { return false }

// BasicAuth is what Traefik's basicAuth fills and asks.
type BasicAuth struct {
	Realm   string
	Secrets SecretProvider
}

// RequireAuth answers 401.
func (a *BasicAuth) RequireAuth(w http.ResponseWriter, _ *http.Request) { refuse(w, "Basic", a.Realm) }

// DigestAuth is what Traefik's digestAuth asks.
type DigestAuth struct{ realm string }

// NewDigestAuthenticator returns one that knows nobody.
func NewDigestAuthenticator(realm string, _ SecretProvider) *DigestAuth { return &DigestAuth{realm} }

// CheckAuth returns no user.
func (a *DigestAuth) CheckAuth(*http.Request) (user string, info *string) { return "", nil }

// RequireAuth answers 401.
func (a *DigestAuth) RequireAuth(w http.ResponseWriter, _ *http.Request) {
	refuse(w, "Digest", a.realm)
}

// RequireAuthStale answers 401.
func (a *DigestAuth) RequireAuthStale(w http.ResponseWriter, r *http.Request) { a.RequireAuth(w, r) }

// DigestAuthParams reads nothing.
func DigestAuthParams(string) map[string]string { return nil }

func refuse(w http.ResponseWriter, scheme, realm string) {
	w.Header().Set("WWW-Authenticate", scheme+` realm="`+realm+`"`)
	http.Error(w, http.StatusText(http.StatusUnauthorized), http.StatusUnauthorized)
}
