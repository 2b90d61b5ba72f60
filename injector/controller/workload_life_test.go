// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// uncalled interceptors have had no request for an hour.
type uncalled struct{ Counts }

func (uncalled) Use(context.Context, string, api.Workload) (injector.Use, error) {
	return injector.Use{Idle: time.Hour, Counted: time.Hour}, nil
}

// TestBypassed: while requests went past the interceptors they cannot say that there was none.
func TestBypassed(t *testing.T) {
	t.Parallel()
	type look struct {
		after time.Duration
		d     demand
	}
	past, open, through := demand{unsafe: true}, demand{open: true}, demand{}
	for name, tc := range map[string]struct {
		looks []look
		want  time.Duration
	}{
		"never":                   {[]look{{0, through}, {time.Minute, through}}, time.Hour},
		"until it was taken over": {[]look{{0, past}, {2 * time.Hour, through}, {time.Minute, through}}, time.Minute},
		"until it failed closed":  {[]look{{0, through}, {time.Minute, open}, {2 * time.Hour, through}, {time.Second, through}, {time.Second, through}}, 2 * time.Second},
		"long ago":                {[]look{{0, open}, {time.Minute, through}, {2 * time.Hour, through}}, time.Hour},
		"to this moment":          {[]look{{0, past}, {2 * time.Hour, through}}, 0},
		"still":                   {[]look{{0, open}, {time.Minute, open}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Unix(1e9, 0)
			r := &WorkloadReconciler{Options: Options{Counts: uncalled{}, Now: func() time.Time { return now }}}
			var was, is life
			for i, look := range tc.looks {
				now = now.Add(look.after)
				was, is = is, is.next(now, i > 0, workload{}, look.d)
			}
			if got := r.slept(t.Context(), was, is, workload{}, demand{}, pause{}).Use.Counted; got != tc.want {
				t.Errorf("counted for %s, want %s", got, tc.want)
			}
		})
	}
}
