// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package browser opens the waiting page in Chromium, before a running interceptor. It is a module of its own, so that what
// it needs is kept out of what is shipped. With SCREENSHOTS set to a folder it leaves there what it saw.
package browser
