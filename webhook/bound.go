// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"cmp"
	"net/http"

	"golang.org/x/sync/semaphore"
)

const (
	// maxReview is the size of the largest review: the API server takes requests of up to 3 MiB, and a review has the object as it is and
	// as it was.
	maxReview = 7 << 20
	// smallReview is the size up to which a review does not wait for larger ones. Nearly all are that small.
	smallReview = 64 << 10
	// spread is how many bytes of memory each byte of a review takes while it is decoded, judged and answered.
	spread = 6
)

// Options bound what the webhook uses.
type Options struct {
	// Memory is how many bytes reviews may take together. Default 64 MiB.
	Memory int64
}

// bounds lets only so many reviews in at a time as there is memory for. The others wait, with their bodies unread, until the API server
// gives up on them.
type bounds struct {
	memory       int64
	small, large *semaphore.Weighted
}

func newBounds(o Options) *bounds {
	memory := cmp.Or(o.Memory, 64<<20)
	return &bounds{memory: memory, small: semaphore.NewWeighted(memory / 2), large: semaphore.NewWeighted(memory)}
}

// of returns a handler that bounds next.
func (b *bounds) of(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := r.ContentLength
		if size > maxReview {
			http.Error(w, "the review is too large", http.StatusRequestEntityTooLarge)
			return
		}
		if size < 0 {
			size = maxReview
		}
		room, need := b.large, min(size*spread, b.memory)
		if size <= smallReview {
			room, need = b.small, min(size*spread, b.memory/2)
		}
		if err := room.Acquire(r.Context(), need); err != nil {
			http.Error(w, "too many large reviews at a time", http.StatusServiceUnavailable)
			return
		}
		defer room.Release(need)
		r.Body = http.MaxBytesReader(w, r.Body, size)
		next.ServeHTTP(w, r)
	})
}
