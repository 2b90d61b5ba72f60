// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package page makes the page that a browser is shown while the app that it asked for starts, and the answers by which that
// page follows the start. It knows nothing of how requests come or wait; whether one is a browser's that opens a page is
// for IsNavigation to say.
//
// The page needs no JavaScript and nothing but itself. An app's namespace may bring a template of its own, a theme. Who
// writes that is not trusted with the interceptor, which all apps share: a theme can neither loop nor call, and what it
// makes is bounded.
package page
