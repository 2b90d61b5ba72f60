// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"errors"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestVisitorsLearnTheKind tests that a visitor reads what kind of failure it is, and the names in it only if the owner wants that.
func TestVisitorsLearnTheKind(t *testing.T) {
	const secret = `secret "prod-payments-db-root-password" not found`
	for _, reason := range []string{
		"", "CreateContainerConfigError", "CreateContainerError", "FailedCreate", "ImagePullBackOff", "CrashLoopBackOff", "Unschedulable",
		"SomethingNew", api.ReasonPaused,
	} {
		for _, full := range []bool{false, true} {
			f := newFixture(0)
			s := web()
			s.Routes.FullDetails = full
			s.Progress = api.Progress{Stage: api.StageStarting, Failing: secret, Reason: reason}
			if reason == api.ReasonPaused {
				s.Progress = api.Progress{Paused: &api.Pause{Why: secret, Asleep: true}}
			}
			f.SetService(s)
			r := f.route(10000)
			_, err := r.Pick(t.Context(), &Visit{})
			failed, ok := errors.AsType[*StartFailedError](err)
			if !ok {
				t.Fatalf("%q: got %v", reason, err)
			}
			start := r.Start().Progress.Failing
			for _, text := range []string{failed.Error(), start} {
				if strings.Contains(text, secret) != full {
					t.Errorf("%q, full details %t: a visitor reads %s", reason, full, text)
				}
			}
			if !full && (!strings.HasSuffix(failed.Error(), start) || start != api.FailureKind(reason)) {
				t.Errorf("%q: the answer is %v, the page says %s", reason, failed, start)
			}
		}
	}
}
