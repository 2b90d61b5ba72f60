// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // both planes read windows, and their image has no zone data of its own
)

const (
	// MaxWindows is how many windows ParseWindows allows.
	MaxWindows = 20
	// maxWindowsText bounds the text. An absolute window takes 51 bytes.
	maxWindowsText = 2000
	// inSight is for how long windows may follow one another before Until says that they never end.
	inSight = 8 * 7 * day
)

const (
	minute = int64(time.Minute / time.Second)
	day    = 24 * 60 * minute
)

// Words that stand for all windows.
const (
	windowsAlways = "always"
	windowsNever  = "never"
)

// Windows are the times in which an app is kept awake. The zero Windows has none. The text has one or more of these, separated by
// commas, or is one of the words always and never:
//
//	Mon-Fri 08:00-18:30 Asia/Seoul                         every week, on these days; Sat alone is one day, and Fri-Mon has four
//	Sat 22:00-06:00 UTC                                    until the next day
//	2030-01-01T00:00:00+02:00-2030-01-02T12:00:00+02:00    once
//
// The clock of the time zone counts. A window begins when the clock first shows its first minute, and ends when the clock shows its
// last one for the last time. What the clock skips it shows at the first instant after the gap.
type Windows struct {
	list   []window
	always bool // they never end
}

// window is one of Windows. It contains its first second, but not its last one.
type window struct {
	// zone is nil for a window that is open once.
	zone *time.Location
	// first and last are the days on which it begins. All days are between them if first is the day after last.
	first, last time.Weekday
	// from and to are seconds after midnight. to is later than from, and may be on the next day.
	from, to int64
	// begin and end are set if zone is nil.
	begin, end time.Time
}

// Empty reports whether there is no window.
func (w Windows) Empty() bool { return !w.always && len(w.list) == 0 }

// Join returns the windows of both, which may be more than MaxWindows.
func (w Windows) Join(other Windows) Windows {
	if w.always && len(w.list) == 0 {
		return w
	}
	if other.always && len(other.list) == 0 {
		return other
	}
	list := slices.Concat(w.list, other.list)
	return Windows{list: list, always: wholeWeek(list)}
}

// String returns a text that ParseWindows reads as the same windows.
func (w Windows) String() string {
	if len(w.list) == 0 {
		if w.always {
			return windowsAlways
		}
		return windowsNever
	}
	var texts []string
	for i := range w.list {
		texts = append(texts, w.list[i].String())
	}
	return strings.Join(texts, ", ")
}

// Contains reports whether t is in a window.
func (w Windows) Contains(t time.Time) bool {
	if w.always {
		return true
	}
	at := t.Unix()
	for i := range w.list {
		if _, ok := w.list[i].covering(at); ok {
			return true
		}
	}
	return false
}

// Until returns when the window around t ends. Windows that overlap, or follow one another without a pause, count as one. It is zero
// if t is in no window, or if the windows follow one another for weeks.
func (w Windows) Until(t time.Time) time.Time {
	if w.always {
		return time.Time{}
	}
	var ends *window
	at := t.Unix()
	for limit := at + inSight; ; {
		next, by := at, ends
		for i := range w.list {
			if end, ok := w.list[i].covering(at); ok && end > next {
				next, by = end, &w.list[i]
			}
		}
		switch {
		case next == at && ends == nil:
			return time.Time{}
		case next == at:
			return ends.local(at)
		case at > limit:
			return time.Time{}
		}
		at, ends = next, by
	}
}

// Next returns when the next window begins, after the one around t if there is one. It is zero if none does.
func (w Windows) Next(t time.Time) time.Time {
	at := t.Unix()
	if w.Contains(t) {
		until := w.Until(t)
		if until.IsZero() {
			return until
		}
		at = until.Unix()
	}
	var begins time.Time
	for i := range w.list {
		if begin, ok := w.list[i].after(at); ok && (begins.IsZero() || begin < begins.Unix()) {
			begins = w.list[i].local(begin)
		}
	}
	return begins
}

// String returns the window as a user writes it.
func (w *window) String() string {
	if w.zone == nil {
		return w.begin.Format(time.RFC3339) + "-" + w.end.Format(time.RFC3339)
	}
	days := w.first.String()[:3]
	if w.last != w.first {
		days += "-" + w.last.String()[:3]
	}
	to := w.to
	if to > day {
		to -= day
	}
	return fmt.Sprintf("%s %02d:%02d-%02d:%02d %s", days, w.from/60/minute, w.from/minute%60, to/60/minute, to/minute%60, w.zone)
}

// local returns a second, since 1970 in UTC, in the window's time zone.
func (w *window) local(at int64) time.Time {
	if w.zone == nil {
		return time.Unix(at, 0).In(w.end.Location())
	}
	return time.Unix(at, 0).In(w.zone)
}

// on reports whether the window begins on that day.
func (w *window) on(d time.Weekday) bool {
	if w.first <= w.last {
		return w.first <= d && d <= w.last
	}
	return w.first <= d || d <= w.last
}

// covering reports whether the window is open at a second, and until when. If it is open more than once, which a clock that is set
// back can cause, that is the latest end.
func (w *window) covering(at int64) (end int64, ok bool) {
	if w.zone == nil {
		return w.end.Unix(), w.begin.Unix() <= at && at < w.end.Unix()
	}
	c := clockAt(w.zone, at)
	midnight, today := c.midnight(at)
	for d := int64(-2); d <= 1; d++ { // a clock may skip a day, or be set back to the day before
		if !w.on(weekday(today, d)) || c.first(midnight+d*day+w.from) > at {
			continue
		}
		if until := c.last(midnight + d*day + w.to); at < until {
			end, ok = max(end, until), true
		}
	}
	return end, ok
}

// after returns the second at which the window next opens, later than at.
func (w *window) after(at int64) (begin int64, ok bool) {
	if w.zone == nil {
		return w.begin.Unix(), w.begin.Unix() > at
	}
	c := clockAt(w.zone, at)
	midnight, today := c.midnight(at)
	for d := int64(-1); d <= 2*7+1; d++ { // the clock may skip all of one week's window
		if !w.on(weekday(today, d)) {
			continue
		}
		begin := c.first(midnight + d*day + w.from)
		if begin > at && begin < c.last(midnight+d*day+w.to) {
			return begin, true
		}
	}
	return 0, false
}

func weekday(today, days int64) time.Weekday { return time.Weekday((today + days + 7) % 7) }

// wholeWeek reports whether the windows of one time zone cover all minutes of a week. They then also cover what its clock skips and
// what it repeats.
func wholeWeek(list []window) bool {
	const week = 7 * day / minute
	done := map[string]bool{}
	for i := range list {
		if list[i].zone == nil || done[list[i].zone.String()] {
			continue
		}
		zone := list[i].zone.String()
		done[zone] = true
		var covered [week]bool
		left := week
		for j := range list {
			w := &list[j]
			if w.zone == nil || w.zone.String() != zone {
				continue
			}
			for d := range int64(7) {
				for m := w.from / minute; w.on(time.Weekday(d)) && m < w.to/minute; m++ {
					if at := (d*day/minute + m) % week; !covered[at] {
						covered[at] = true
						left--
					}
				}
			}
		}
		if left == 0 {
			return true
		}
	}
	return false
}

// ParseWindows reads the text of Windows. The error says which window is wrong, and why.
func ParseWindows(text string) (Windows, error) {
	if len(text) > maxWindowsText {
		return Windows{}, fmt.Errorf("it is %d bytes long; at most %d are allowed", len(text), maxWindowsText)
	}
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "":
		return Windows{}, fmt.Errorf("it is empty; the word %s stands for no window", windowsNever)
	case windowsAlways:
		return Windows{always: true}, nil
	case windowsNever:
		return Windows{}, nil
	}
	parts := strings.Split(text, ",")
	if len(parts) > MaxWindows {
		return Windows{}, fmt.Errorf("it has %d windows; at most %d are allowed", len(parts), MaxWindows)
	}
	var list []window
	for i, part := range parts {
		part = strings.TrimSpace(part)
		w, err := parseWindow(part)
		if err != nil {
			return Windows{}, fmt.Errorf("window %d is %q: %w", i+1, part, err)
		}
		list = append(list, w)
	}
	return Windows{list: list, always: wholeWeek(list)}, nil
}

func parseWindow(text string) (window, error) {
	switch strings.ToLower(text) {
	case "":
		return window{}, errors.New("there is a comma too many")
	case windowsAlways, windowsNever:
		return window{}, errors.New("this word cannot be combined with windows")
	}
	if _, err := strconv.Atoi(strings.SplitN(text, "-", 2)[0]); err == nil { // a year
		return parseOnce(text)
	}
	return parseWeekly(strings.Fields(text))
}

// parseOnce reads two dates with a hyphen between them. Dates have hyphens too.
func parseOnce(text string) (window, error) {
	for i := range len(text) {
		if text[i] != '-' {
			continue
		}
		begin, err := time.Parse(time.RFC3339, strings.TrimSpace(text[:i]))
		end, err2 := time.Parse(time.RFC3339, strings.TrimSpace(text[i+1:]))
		if err != nil || err2 != nil || begin.Nanosecond() != 0 || end.Nanosecond() != 0 {
			continue
		}
		if !begin.Before(end) {
			return window{}, errors.New("it ends before it begins")
		}
		return window{begin: begin, end: end}, nil
	}
	return window{}, errors.New("a window between two dates is written as 2030-01-01T00:00:00+02:00-2030-01-02T12:00:00+02:00")
}

func parseWeekly(words []string) (w window, err error) {
	switch {
	case strings.Contains(words[0], ":"):
		return w, errors.New("weekdays are missing before the time, such as Mon-Fri, or Mon-Sun for every day")
	case len(words) == 1:
		return w, errors.New("a time and a time zone are missing after the weekdays, as in Mon-Fri 08:00-18:30 Asia/Seoul")
	case len(words) > 3:
		return w, errors.New("want three words, as in Mon-Fri 08:00-18:30 America/New_York, without blanks around a hyphen or in a time zone")
	}
	if w.first, w.last, err = parseDays(words[0]); err != nil {
		return w, err
	}
	if w.from, w.to, err = parseTimes(words[1]); err != nil {
		return w, err
	}
	if len(words) == 2 {
		return w, errors.New("a time zone is missing after the time, such as Europe/Berlin, Asia/Seoul or UTC")
	}
	w.zone, err = parseZone(words[2])
	return w, err
}

// parseDays reads Mon-Fri or Sat.
func parseDays(text string) (first, last time.Weekday, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	var ok, ok2 bool
	if first, ok = parseDay(from); !ok {
		return 0, 0, fmt.Errorf("%q is not a weekday; want Mon, Tue, Wed, Thu, Fri, Sat or Sun, or two of them as in Mon-Fri", from)
	}
	if last, ok2 = parseDay(to); !ok2 {
		return 0, 0, fmt.Errorf("%q is not a weekday; want Mon, Tue, Wed, Thu, Fri, Sat or Sun, or two of them as in Mon-Fri", to)
	}
	return first, last, nil
}

func parseDay(text string) (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if strings.EqualFold(text, d.String()[:3]) {
			return d, true
		}
	}
	return 0, false
}

// parseTimes reads 08:00-18:30.
func parseTimes(text string) (from, to int64, err error) {
	begin, end, isRange := strings.Cut(text, "-")
	if !isRange {
		return 0, 0, fmt.Errorf("%q is not a range of time; want two times as in 08:00-18:30", text)
	}
	var ok bool
	if from, ok = parseTime(begin); !ok || from == day {
		return 0, 0, fmt.Errorf("%q is not a time at which a window can begin; want 00:00 to 23:59", begin)
	}
	if to, ok = parseTime(end); !ok {
		return 0, 0, fmt.Errorf("%q is not a time at which a window can end; want 00:00 to 24:00", end)
	}
	if to == from {
		return 0, 0, errors.New("it ends when it begins; a whole day is 00:00-24:00")
	}
	if to < from {
		to += day
	}
	return from, to, nil
}

func parseTime(text string) (seconds int64, ok bool) {
	if len(text) != len("00:00") || text[2] != ':' {
		return 0, false
	}
	h, err := strconv.ParseUint(text[:2], 10, 8)
	m, err2 := strconv.ParseUint(text[3:], 10, 8)
	at := (int64(h)*60 + int64(m)) * minute
	return at, err == nil && err2 == nil && m < 60 && at <= day
}
