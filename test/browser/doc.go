// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package browser opens the waiting page in Chromium, before a running interceptor. It is a module of its own, so that
// its dependencies are not the product's. With SCREENSHOTS set to a folder, it stores screenshots there.
package browser
