// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// awakeSettings are the settings about when an app is kept awake.
func awakeSettings() map[string]setting {
	return map[string]setting{"awake": readAwake}
}

// readAwake is a setting.
func readAwake(s *Settings, value string) (allowed string, ok bool) {
	s.Awake = value
	allowed = fmt.Sprintf("at most %d windows such as \"Mon-Fri 08:00-18:30 Asia/Seoul, Sat 10:00-12:00 Asia/Seoul\", or always, or never",
		api.MaxWindows)
	if _, err := api.ParseWindows(value); err != nil {
		return fmt.Sprintf("%s; %s", allowed, err), false
	}
	return allowed, true
}

// windowWatch plans what is said about the windows in which a workload is kept awake.
type windowWatch struct{ *workloadPlanner }

// watch looks again when a window begins or ends, and reports both.
func (p windowWatch) watch() WorkloadQuestion {
	now, w, last := p.o.Now, p.o.Workload, p.Memory.Window
	if p.d.windows.Empty() || len(p.d.services) == 0 {
		p.Memory.Window = ""
		return NoWorkloadQuestion
	}
	until, next := p.d.windows.Until(now), p.d.windows.Next(now)
	begins := ""
	if !next.IsZero() {
		begins = "; the next begins " + windowEdge(next)
	}
	note := ""
	switch {
	case p.d.keepsAwake(now) && until.IsZero():
		note = fmt.Sprintf("%s is kept awake all the time, by annotation %sawake", w.Ref(), Prefix)
	case p.d.keepsAwake(now):
		p.after(until.Sub(now))
		note = fmt.Sprintf("%s is kept awake until %s, by annotation %sawake", w.Ref(), windowEdge(until), Prefix)
	case p.d.staysAsleep(): // another event says so
	default:
		if !next.IsZero() {
			p.after(next.Sub(now))
		}
		if last != "" {
			note = fmt.Sprintf("The window of annotation %sawake has ended%s. %s sleeps once nobody has used it for %s", Prefix, begins, w.Ref(),
				Short(p.d.cooldown()))
		}
	}
	p.Memory.Window = note
	if note != "" && note != last {
		p.report(corev1.EventTypeNormal, ReasonWindow, note)
		p.Reports[len(p.Reports)-1].Lasting = true
	}
	return NoWorkloadQuestion
}

// windowEdge prints when a window begins or ends, by its own clock.
func windowEdge(t time.Time) string { return t.Format("Mon 2 Jan 15:04 MST") }
