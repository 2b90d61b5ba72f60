// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/notice"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

// Reasons of the events.
const (
	KeptBusy    = "KeptBusy"
	CheckFailed = "BusyCheckFailed"
	CPUUnknown  = "BusyCPUUnknown"
)

// told is what a workload's owner has been told, so that everything is said once.
type told struct {
	failures   int  // in a row
	kept       bool // up, although it had no requests, until it is not busy
	unmeasured bool // until its CPU usage was read
}

// busy takes in that the workload is busy, and why.
func (s *told) busy(c *Checker, check route.BusyCheck, why, period string) {
	s.failures = 0
	if s.kept {
		return
	}
	s.kept = true
	c.tell(check, notice.Notice{
		Reason: KeptBusy, ID: "kept-busy-" + check.SleepID + "-" + period,
		Message: fmt.Sprintf("%s has no requests but is busy: %s. It stays up until that is over", check.Workload, why),
	})
}

// idle takes in that the workload is not busy.
func (s *told) idle() { s.failures, s.kept = 0, false }

// failed takes in that a check failed, and reports whether the workload counts as busy nevertheless.
func (s *told) failed(c *Checker, check route.BusyCheck, err error, period string) bool {
	if s.failures++; s.failures < maxFailures {
		return true
	}
	if s.failures == maxFailures {
		c.tell(check, notice.Notice{
			Reason: CheckFailed, Warning: true, ID: "busy-check-failed-" + check.SleepID + "-" + period,
			Message: fmt.Sprintf("It was unclear %d times in a row whether %s is busy: %s. It counts as not busy from now on, and "+
				"sleeps even while it works. %s", maxFailures, check.Workload, scaler.Clean(err.Error(), 500), advice(check)),
		})
	}
	s.kept = false
	return false
}

// advice says what to do about a check that fails.
func advice(check route.BusyCheck) string {
	if check.Busy.Request == nil {
		return "See that metrics-server works, or remove annotation scale-to-zero/busy-cpu"
	}
	return "Correct annotations scale-to-zero/busy and scale-to-zero/busy-when, or remove them. The app has to answer without a login"
}

// metrics takes in whether the workload's CPU usage can be read.
func (s *told) metrics(c *Checker, check route.BusyCheck, r result) {
	if r.measured {
		s.unmeasured = false
	}
	if r.unmeasured == nil || s.unmeasured {
		return
	}
	s.unmeasured = true
	c.tell(check, notice.Notice{
		Reason: CPUUnknown, Warning: true, ID: "busy-cpu-unknown",
		Message: fmt.Sprintf("Annotation scale-to-zero/busy-cpu has no effect on %s: %s. So it sleeps even while it uses much CPU. "+
			"Install metrics-server (https://github.com/kubernetes-sigs/metrics-server), or remove the annotation",
			check.Workload, scaler.Clean(r.unmeasured.Error(), 500)),
	})
}

func (c *Checker) tell(check route.BusyCheck, n notice.Notice) {
	if c.options.Events == nil {
		return
	}
	n.Namespace, n.Service, n.ServiceUID, n.Workload = check.Namespace, check.Service, check.ServiceUID, check.Workload
	c.options.Events.Notice(n)
}

// periodOf names a time without requests by the minute in which it began. All interceptors know about the same of that, since they
// share their counts, so the same event has the same ID.
func periodOf(idle time.Duration) string {
	if idle == math.MaxInt64 {
		return "0"
	}
	return strconv.FormatInt(time.Now().Add(-idle).Unix()/60, 36)
}
