// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package page makes the page that a browser sees while the app starts, and the answers by which the page follows the start. It knows
// nothing about how requests arrive or wait. IsNavigation decides whether a request is a browser's that opens a page.
//
// The page needs no JavaScript and no other resources. An app's namespace may have a template of its own, a theme. Its author is not
// trusted with the interceptor, which all apps share: a theme can neither loop nor call functions, and the size of its page is
// bounded.
package page
