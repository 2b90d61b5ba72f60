// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import "context"

// syncing says whether the Sink knows everything that existed at the start.
type syncing struct{ synced chan struct{} }

// Synced implements Sink.
func (s syncing) Synced() { close(s.synced) }

// WaitSynced waits until Synced was called.
func (s syncing) WaitSynced(ctx context.Context) error {
	select {
	case <-s.synced:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// IsSynced reports whether Synced was called.
func (s syncing) IsSynced() bool {
	select {
	case <-s.synced:
		return true
	default:
		return false
	}
}
