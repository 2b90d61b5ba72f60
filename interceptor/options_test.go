// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"testing"
	"time"
)

func TestOptionsDefaults(t *testing.T) {
	for name, tc := range map[string]struct {
		options Options
		limits  Limits
		hops    int
	}{
		"nothing is said": {limits: DefaultLimits(), hops: AllHops},
		"some is": {
			Options{Limits: Limits{IdleTimeout: time.Hour}},
			Limits{
				MaxConnections: 10000, MaxHeaderBytes: 64 << 10, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: time.Hour, WriteTimeout: time.Minute,
			},
			AllHops,
		},
		"no hop":  {Options{TrustedHops: new(0)}, DefaultLimits(), 0},
		"one hop": {Options{TrustedHops: new(1)}, DefaultLimits(), 1},
	} {
		t.Run(name, func(t *testing.T) {
			tc.options.Cluster = struct{ Cluster }{}
			if err := tc.options.setDefaults(); err != nil {
				t.Fatal(err)
			}
			if got := tc.options; got.Limits != tc.limits || *got.TrustedHops != tc.hops {
				t.Errorf("got %+v and %d hops", got.Limits, *got.TrustedHops)
			}
		})
	}
}
