// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package listen

import "github.com/go-logr/logr"

// watcher exists on Linux only. Elsewhere, each port has a goroutine.
type watcher struct{}

func newWatcher(logr.Logger) *watcher { return nil }

func (*watcher) add(*server) bool { return false }

func (*watcher) rearm(*server) bool { return false }

func (*watcher) remove(*server) {}

func (*watcher) close() {}
