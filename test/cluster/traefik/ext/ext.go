// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package ext stands in for the nested module of Traefik that a product built on it fills with settings of its own. It is
// not in the zip of Traefik's module.
package ext

// HTTP is what would be added to the configuration of HTTP: nothing.
type HTTP struct{}

// Router is what would be added to a router: nothing.
type Router struct{}
