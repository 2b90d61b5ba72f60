// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func windows(tb testing.TB, text string) Windows {
	tb.Helper()
	w, err := ParseWindows(text)
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// at reads a time. It is empty for the zero time.
func at(t *testing.T, text string) time.Time {
	t.Helper()
	if text == "" {
		return time.Time{}
	}
	got, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// The changes of clocks are those of the IANA time zone database.
func TestWindows(t *testing.T) {
	const work = "Mon-Fri 08:00-18:30 Asia/Seoul, Sat 10:00-12:00 Asia/Seoul"
	for name, tc := range map[string]struct {
		text, now, until, next string // until is empty if now is outside, and - if the window does not end
	}{
		"before":            {work, "2026-03-06T07:59:59+09:00", "", "2026-03-06T08:00:00+09:00"},
		"at the beginning":  {work, "2026-03-06T08:00:00+09:00", "2026-03-06T18:30:00+09:00", "2026-03-07T10:00:00+09:00"},
		"the last second":   {work, "2026-03-06T18:29:59+09:00", "2026-03-06T18:30:00+09:00", "2026-03-07T10:00:00+09:00"},
		"at the end":        {work, "2026-03-06T18:30:00+09:00", "", "2026-03-07T10:00:00+09:00"},
		"over the weekend":  {work, "2026-03-07T12:00:00+09:00", "", "2026-03-09T08:00:00+09:00"},
		"another day there": {work, "2026-03-08T23:30:00Z", "2026-03-09T18:30:00+09:00", "2026-03-10T08:00:00+09:00"},

		"one day alone":          {"Wed 00:00-24:00 UTC", "2026-03-04T12:00:00Z", "2026-03-05T00:00:00Z", "2026-03-11T00:00:00Z"},
		"written with two words": {"Wed-Wed 00:00-24:00 UTC", "2026-03-04T12:00:00Z", "2026-03-05T00:00:00Z", "2026-03-11T00:00:00Z"},
		"over the end of a week": {"Fri-Mon 08:00-09:00 UTC", "2026-03-08T08:30:00Z", "2026-03-08T09:00:00Z", "2026-03-09T08:00:00Z"},
		"not between its days":   {"Fri-Mon 08:00-09:00 UTC", "2026-03-10T08:30:00Z", "", "2026-03-13T08:00:00Z"},
		"in small letters":       {"sat-sUn 08:00-09:00 UTC", "2026-03-08T08:30:00Z", "2026-03-08T09:00:00Z", "2026-03-14T08:00:00Z"},

		"past midnight":           {"Fri 22:00-06:00 UTC", "2026-03-07T05:59:00Z", "2026-03-07T06:00:00Z", "2026-03-13T22:00:00Z"},
		"not before its midnight": {"Fri 22:00-06:00 UTC", "2026-03-06T05:59:00Z", "", "2026-03-06T22:00:00Z"},
		"until midnight":          {"Fri 22:00-00:00 UTC", "2026-03-06T23:59:00Z", "2026-03-07T00:00:00Z", "2026-03-13T22:00:00Z"},

		"two that overlap": {
			"Mon 08:00-12:00 UTC, Mon 11:00-15:00 UTC", "2026-03-02T09:00:00Z", "2026-03-02T15:00:00Z", "2026-03-09T08:00:00Z",
		},
		"two that touch": {
			"Mon 12:00-15:00 UTC, Mon 08:00-12:00 UTC", "2026-03-02T09:00:00Z", "2026-03-02T15:00:00Z", "2026-03-09T08:00:00Z",
		},
		"days that touch": {"Tue-Thu 00:00-24:00 UTC", "2026-03-03T09:00:00Z", "2026-03-06T00:00:00Z", "2026-03-10T00:00:00Z"},
		"zones that touch": {
			"Mon 08:00-12:00 UTC, Mon 21:00-23:00 Asia/Seoul", "2026-03-02T09:00:00Z", "2026-03-02T14:00:00Z", "2026-03-09T08:00:00Z",
		},
		"all week":             {"Mon-Sun 00:00-24:00 UTC", "2026-03-02T09:00:00Z", "-", ""},
		"all week, in halves":  {"Mon-Sun 06:00-18:00 Europe/Berlin, Mon-Sun 18:00-06:00 Europe/Berlin", "2026-03-29T01:00:00Z", "-", ""},
		"all week, in two":     {"Mon-Sun 00:00-12:00 UTC, Mon-Sun 12:00-24:00 Etc/UTC", "2026-03-02T09:00:00Z", "-", ""},
		"always":               {" Always ", "2026-03-02T09:00:00Z", "-", ""},
		"never":                {"never", "2026-03-02T09:00:00Z", "", ""},
		"once, before":         {"2030-01-01T00:00:00+02:00-2030-01-02T12:00:00+02:00", "2029-12-31T21:59:59Z", "", "2029-12-31T22:00:00Z"},
		"once, during":         {"2030-01-01T00:00:00+02:00-2030-01-02T12:00:00+02:00", "2029-12-31T22:00:00Z", "2030-01-02T10:00:00Z", ""},
		"once, after":          {"2030-01-01T00:00:00+02:00-2030-01-02T12:00:00+02:00", "2030-01-02T10:00:00Z", "", ""},
		"once, west of London": {"2030-01-01T00:00:00-05:00-2030-01-02T12:00:00-05:00", "2030-01-01T05:00:00Z", "2030-01-02T17:00:00Z", ""},
		"once, with blanks":    {"2030-01-01T00:00:00Z - 2030-01-02T12:00:00Z", "2030-01-01T05:00:00Z", "2030-01-02T12:00:00Z", ""},
		"once, for years":      {"2030-01-01T00:00:00Z-2040-01-01T00:00:00Z", "2030-01-01T05:00:00Z", "2040-01-01T00:00:00Z", ""},
		"once beside a week": {
			"2030-01-01T00:00:00Z-2030-01-01T09:00:00Z, Tue 08:00-10:00 UTC", "2030-01-01T05:00:00Z", "2030-01-01T10:00:00Z", "2030-01-08T08:00:00Z",
		},

		// Berlin has no 02:00 to 03:00 on 29 March 2026, and has it twice on 25 October.
		"begins in the gap": {"Sun 02:30-04:00 Europe/Berlin", "2026-03-29T00:59:59Z", "", "2026-03-29T01:00:00Z"},
		"began in the gap":  {"Sun 02:30-04:00 Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z", "2026-04-05T00:30:00Z"},
		"ends in the gap":   {"Sun 01:00-02:30 Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-04-04T23:00:00Z"},
		"is in the gap":     {"Sun 02:00-03:00 Europe/Berlin", "2026-03-29T00:59:59Z", "", "2026-04-05T00:00:00Z"},
		"over the gap":      {"Sun 01:00-04:00 Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z", "2026-04-04T23:00:00Z"},
		"touches over the gap": {
			"Sun 00:00-02:10 Europe/Berlin, Sun 02:50-05:00 Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T03:00:00Z", "2026-04-04T22:00:00Z",
		},
		"begins in the hour":      {"Sun 02:30-04:00 Europe/Berlin", "2026-10-25T00:29:59Z", "", "2026-10-25T00:30:00Z"},
		"lasts through the hour":  {"Sun 02:30-04:00 Europe/Berlin", "2026-10-25T01:15:00Z", "2026-10-25T03:00:00Z", "2026-11-01T01:30:00Z"},
		"ends in the second hour": {"Sun 01:00-02:30 Europe/Berlin", "2026-10-25T00:45:00Z", "2026-10-25T01:30:00Z", "2026-11-01T00:00:00Z"},
		"ends as it repeats":      {"Sun 01:00-02:00 Europe/Berlin", "2026-10-25T00:45:00Z", "2026-10-25T01:00:00Z", "2026-11-01T00:00:00Z"},
		"New York in spring":      {"Sun 02:00-12:00 America/New_York", "2026-03-08T06:59:59Z", "", "2026-03-08T07:00:00Z"},
		"New York in autumn":      {"Sun 01:00-02:00 America/New_York", "2026-11-01T05:00:00Z", "2026-11-01T07:00:00Z", "2026-11-08T06:00:00Z"},
		// Lord Howe's clock is set by half an hour, at 02:00.
		"half an hour forward": {"Sun 02:15-03:00 Australia/Lord_Howe", "2026-10-03T15:29:59Z", "", "2026-10-03T15:30:00Z"},
		"half an hour back":    {"Sun 01:00-01:45 Australia/Lord_Howe", "2026-04-04T14:50:00Z", "2026-04-04T15:15:00Z", "2026-04-11T14:30:00Z"},
		// Apia had no 30 December 2011, a Friday.
		"a day that was not":      {"Fri 08:00-18:00 Pacific/Apia", "2011-12-30T09:59:59Z", "", "2012-01-05T18:00:00Z"},
		"over it":                 {"Thu 22:00-06:00 Pacific/Apia", "2011-12-30T09:00:00Z", "2011-12-30T10:00:00Z", "2012-01-05T08:00:00Z"},
		"all days beside it":      {"Thu-Sat 00:00-24:00 Pacific/Apia", "2011-12-30T09:00:00Z", "2011-12-31T10:00:00Z", "2012-01-04T10:00:00Z"},
		"from it into the next":   {"Fri 22:00-06:00 Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T16:00:00Z", "2012-01-06T08:00:00Z"},
		"a midnight that was not": {"Sun 00:00-02:00 America/Sao_Paulo", "2017-10-15T03:00:00Z", "2017-10-15T04:00:00Z", "2017-10-22T02:00:00Z"},
		// The clock is set back from 00:00 to 23:00 of Saturday: Sunday begins only once.
		"a midnight that came twice": {"Sun 00:00-02:00 America/Sao_Paulo", "2018-02-18T02:30:00Z", "", "2018-02-18T03:00:00Z"},
		"the day before it": {
			"Sat 12:00-24:00 America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-18T03:00:00Z", "2018-02-24T15:00:00Z",
		},
		// ZoneBounds has wrong bounds for the last day of a leap year.
		"the end of a leap year": {"Sun 23:00-01:00 Europe/Berlin", "2028-12-31T22:30:00Z", "2029-01-01T00:00:00Z", "2029-01-07T22:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			w, now := windows(t, tc.text), at(t, tc.now)
			if got := w.Contains(now); got != (tc.until != "") {
				t.Errorf("contains it: %v", got)
			}
			if got := w.Until(now); !got.Equal(at(t, strings.TrimPrefix(tc.until, "-"))) {
				t.Errorf("until %s, want %s", got, tc.until)
			}
			if got := w.Next(now); !got.Equal(at(t, tc.next)) {
				t.Errorf("next %s, want %s", got, tc.next)
			}
		})
	}
}

func TestParseWindowsSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                                            "it is empty; the word never stands for no window",
		" \t ":                                        "it is empty",
		"always, Mon-Fri 08:00-18:30 UTC":             `window 1 is "always": this word cannot be combined`,
		"Mon-Fri 08:00-18:30 UTC, Never":              `window 2 is "Never": this word cannot be combined`,
		"Mon-Fri 08:00-18:30 UTC,":                    `window 2 is "": there is a comma too many`,
		"Mon-Fri 08:00-18:30":                         `a time zone is missing after the time, such as Europe/Berlin`,
		"Mon-Fri":                                     `a time and a time zone are missing`,
		"08:00-18:30 UTC":                             `weekdays are missing before the time, such as Mon-Fri`,
		"08:00 UTC":                                   `weekdays are missing before the time`,
		"Mon-Fri 08:00 UTC":                           `"08:00" is not a range of time; want two times as in 08:00-18:30`,
		"Mon - Fri 08:00-18:30 UTC":                   `want three words`,
		"Mon-Fri 08:00-18:30 America/New York":        "want three words",
		"Monday-Fri 08:00-18:30 UTC":                  `"Monday" is not a weekday`,
		"Mon-Fry 08:00-18:30 UTC":                     `"Fry" is not a weekday`,
		"Mon-Wed-Fri 08:00-18:30 UTC":                 `"Wed-Fri" is not a weekday`,
		"Mon-Fri 8:00-18:30 UTC":                      `"8:00" is not a time at which a window can begin; want 00:00 to 23:59`,
		"Mon-Fri 24:00-18:30 UTC":                     `"24:00" is not a time at which a window can begin`,
		"Mon-Fri 08:00-24:01 UTC":                     `"24:01" is not a time at which a window can end; want 00:00 to 24:00`,
		"Mon-Fri 08:00-18:60 UTC":                     `"18:60" is not a time`,
		"Mon-Fri 08:00-+1:30 UTC":                     `"+1:30" is not a time`,
		"Mon-Fri 08:00-08:00 UTC":                     "it ends when it begins; a whole day is 00:00-24:00",
		"Mon-Fri 08:00-18:30 Local":                   "Local is no time zone, because each machine has its own",
		"Mon-Fri 08:00-18:30 local":                   "local is no time zone",
		"Mon-Fri 08:00-18:30 localtime":               `time zone "localtime" is unknown; want a name of the IANA`,
		"Mon-Fri 08:00-18:30 posix/UTC":               `time zone "posix/UTC" is unknown`,
		"Mon-Fri 08:00-18:30 +09:00":                  `time zone "+09:00" is unknown; want a name of the IANA`,
		"Mon-Fri 08:00-18:30 PST":                     `time zone "PST" is unknown; want a name of the IANA`,
		"Mon-Fri 08:00-18:30 Asia/../UTC":             `time zone "Asia/../UTC" is unknown`,
		"Mon-Fri 08:00-18:30 Asia":                    `time zone "Asia" is unknown`,
		"Mon-Fri 08:00-18:30 asia/seoul":              `time zone "asia/seoul" is unknown; Asia/Seoul is known`,
		"Mon-Fri 08:00-18:30 utc":                     `time zone "utc" is unknown; UTC is known`,
		"Mon-Fri 08:00-18:30 US/EASTERN":              `US/Eastern is known`,
		"Mon-Fri 08:00-18:30 etc/gmt+9":               `Etc/GMT+9 is known`,
		"Mon-Fri 08:00-18:30 America/port_of_spain":   `America/Port_of_Spain is known`,
		"2030-01-01T00:00:00-2030-01-02T00:00:00":     `a window between two dates is written as 2030-`,
		"2030-01-01T00:00:00.5Z-2030-01-02T00:00:00Z": `a window between two dates is written as 2030-`,
		"2030-01-01T00:00:00Z":                        `a window between two dates is written as 2030-`,
		"2030-01-02T00:00:00Z-2030-01-01T00:00:00Z":   "it ends before it begins",
		strings.Repeat("Mon 08:00-09:00 UTC,", MaxWindows) + "Tue 08:00-09:00 UTC": "it has 21 windows; at most 20 are allowed",
		strings.Repeat(" ", maxWindowsText+1):                                      "it is 2001 bytes long; at most 2000 are allowed",
	} {
		if w, err := ParseWindows(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want %s", text, w, err, want)
		}
	}
	if _, err := ParseWindows(strings.Repeat("Mon 08:00-09:00 UTC, ", MaxWindows-1) + "Tue 08:00-09:00 UTC"); err != nil {
		t.Errorf("%d windows: %v", MaxWindows, err)
	}
}

func TestWindowsAreWrittenAlike(t *testing.T) {
	for text, want := range map[string]string{
		"NEVER": "never", "Always": "always",
		" mon-FRI  08:00-18:30   Asia/Seoul ,Sat-Sat 22:00-06:00 UTC": "Mon-Fri 08:00-18:30 Asia/Seoul, Sat 22:00-06:00 UTC",
		"Sun 22:00-00:00 UTC":                                   "Sun 22:00-24:00 UTC",
		"Mon-Sun 00:00-24:00 UTC":                               "Mon-Sun 00:00-24:00 UTC",
		"2030-01-01T00:00:00+02:00 - 2030-01-02T12:00:00+00:00": "2030-01-01T00:00:00+02:00-2030-01-02T12:00:00Z",
	} {
		if got := windows(t, text).String(); got != want {
			t.Errorf("%q is written as %q, want %q", text, got, want)
		}
	}
}

func TestJoinedWindows(t *testing.T) {
	now := at(t, "2026-03-02T09:00:00Z")
	morning, noon := windows(t, "Mon 08:00-12:00 UTC"), windows(t, "Mon 12:00-14:00 UTC")
	for name, tc := range map[string]struct {
		w     Windows
		empty bool
		until string
	}{
		"nothing":            {Windows{}.Join(Windows{}), true, ""},
		"nothing with one":   {Windows{}.Join(morning), false, "2026-03-02T12:00:00Z"},
		"one with nothing":   {morning.Join(Windows{}), false, "2026-03-02T12:00:00Z"},
		"two":                {noon.Join(morning), false, "2026-03-02T14:00:00Z"},
		"one with always":    {morning.Join(windows(t, "always")), false, ""},
		"always with one":    {windows(t, "always").Join(morning), false, ""},
		"a week in two":      {windows(t, "Mon-Thu 00:00-24:00 UTC").Join(windows(t, "Fri-Sun 00:00-24:00 UTC")), false, ""},
		"always with a week": {windows(t, "Mon-Sun 00:00-24:00 UTC").Join(morning), false, ""},
	} {
		if tc.w.Empty() != tc.empty || tc.w.Contains(now) == tc.empty {
			t.Errorf("%s: empty is %v, and it contains the time: %v", name, tc.w.Empty(), tc.w.Contains(now))
		}
		if got := tc.w.Until(now); !got.Equal(at(t, tc.until)) {
			t.Errorf("%s: until %s, want %s", name, got, tc.until)
		}
	}
}

// Times are in the zone in which the user wrote them, for messages.
func TestWindowsSpeakTheirZone(t *testing.T) {
	w := windows(t, "Mon-Fri 08:00-18:30 Asia/Seoul, 2026-03-07T00:00:00-05:00-2026-03-07T12:00:00-05:00")
	now := at(t, "2026-03-06T00:00:00Z")
	if got := w.Until(now).Format(time.RFC3339); got != "2026-03-06T18:30:00+09:00" {
		t.Errorf("until %s", got)
	}
	if got := w.Next(now).Format(time.RFC3339); got != "2026-03-07T00:00:00-05:00" {
		t.Errorf("next %s", got)
	}
}

// model answers the same as Windows for a stretch of time, from nothing but what the clocks show in each minute of it.
type model struct {
	begin time.Time
	open  []bool
}

// show returns what the clock of the zone shows in each minute, in minutes since 1970 on that clock.
func show(zone *time.Location, begin time.Time, minutes int) []int {
	shown := make([]int, minutes)
	for i := range shown {
		t := begin.Add(time.Duration(i) * time.Minute).In(zone)
		_, ahead := t.Zone()
		shown[i] = int((t.Unix() + int64(ahead)) / 60)
	}
	return shown
}

func newModel(w Windows, begin time.Time, minutes int) *model {
	m := &model{begin: begin, open: make([]bool, minutes)}
	for i := range w.list {
		window := &w.list[i]
		shown := show(window.zone, begin, minutes)
		low, high := slices.Min(shown), slices.Max(shown)
		first, last, below := make([]int, high-low+1), make([]int, high-low+1), make([]int, high-low+1)
		for j, next := 0, low; j < minutes; j++ { // when the clock first shows this or more
			for ; next <= shown[j]; next++ {
				first[next-low] = j
			}
		}
		for j, next := minutes-1, high; j >= 0; j-- { // when it last shows less than this
			for ; next > shown[j]; next-- {
				below[next-low] = j
			}
		}
		for j, s := range shown { // when it last shows just this; 0 if it does not
			last[s-low] = j
		}
		for date := low/1440 - 1; date <= high/1440; date++ {
			opens, closes := date*1440+int(window.from/60), date*1440+int(window.to/60)
			if closes <= low || opens >= high || !window.on(time.Weekday((date+int(time.Thursday))%7)) {
				continue
			}
			from, to := 0, minutes
			if opens > low {
				from = first[opens-low]
			}
			if closes <= high {
				to = max(last[closes-low], below[closes-low]+1)
			}
			for j := from; j < to; j++ {
				m.open[j] = true
			}
		}
	}
	return m
}

// check compares the model with w at a minute. The model knows no change later than its end.
func (m *model) check(w Windows, i int) error {
	at := func(i int) time.Time { return m.begin.Add(time.Duration(i) * time.Minute) }
	now := at(i).Add(time.Duration(rand.IntN(60)) * time.Second)
	change := func(from int, to bool) int {
		for from < len(m.open) && m.open[from] != to {
			from++
		}
		return from
	}
	if got := w.Contains(now); got != m.open[i] {
		return fmt.Errorf("%s: contains it: %v", now, got)
	}
	from := i
	if m.open[i] {
		from = change(i, false)
		if until := w.Until(now); from < len(m.open) && !until.Equal(at(from)) {
			return fmt.Errorf("%s: until %s, want %s", now, until, at(from))
		}
	} else if until := w.Until(now); !until.IsZero() {
		return fmt.Errorf("%s: until %s, want none", now, until)
	}
	if next := change(from, true); next < len(m.open) {
		if got := w.Next(now); !got.Equal(at(next)) {
			return fmt.Errorf("%s: next %s, want %s", now, got, at(next))
		}
	}
	return nil
}

// random returns windows of the zones, mostly at times when clocks are set.
func random(t *testing.T, zones ...string) Windows {
	t.Helper()
	days := []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
	clock := func() string {
		return fmt.Sprintf("%02d:%02d", []int{0, 0, 1, 1, 2, 2, 3, 23, 23, rand.IntN(24)}[rand.IntN(10)], rand.IntN(60))
	}
	var texts []string
	for len(texts) < 1+rand.IntN(3) {
		from, to := clock(), clock()
		if to == "00:00" {
			to = "24:00"
		}
		if from != to {
			texts = append(texts, days[rand.IntN(7)]+"-"+days[rand.IntN(7)]+" "+from+"-"+to+" "+zones[rand.IntN(len(zones))])
		}
	}
	return windows(t, strings.Join(texts, ", "))
}

// Windows answer as the clock on the wall would, minute by minute, over years in which clocks are set in all ways.
func TestWindowsFollowTheClock(t *testing.T) {
	for name, tc := range map[string]struct {
		begin string // all last for a year
		zones []string
	}{
		"Berlin":     {"2028-07-01T00:00:00Z", []string{"Europe/Berlin"}}, // a leap year ends
		"New York":   {"2025-07-01T00:00:00Z", []string{"America/New_York"}},
		"Lord Howe":  {"2025-07-01T00:00:00Z", []string{"Australia/Lord_Howe"}},
		"Apia":       {"2011-07-01T00:00:00Z", []string{"Pacific/Apia"}},
		"Kwajalein":  {"1993-01-01T00:00:00Z", []string{"Pacific/Kwajalein"}}, // it had no 21 August 1993
		"São Paulo":  {"2017-07-01T00:00:00Z", []string{"America/Sao_Paulo"}},
		"Troll":      {"2025-07-01T00:00:00Z", []string{"Antarctica/Troll"}}, // two hours
		"Casablanca": {"2026-01-01T00:00:00Z", []string{"Africa/Casablanca"}},
		"Dublin":     {"2050-07-01T00:00:00Z", []string{"Europe/Dublin"}},
		"two zones":  {"2026-01-01T00:00:00Z", []string{"Europe/London", "America/St_Johns"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin, minutes := at(t, tc.begin), 365*1440
			w := random(t, tc.zones...)
			m := newModel(w, begin, minutes)
			const edge = 3 * 1440 // at the ends, the model does not see all that the clock shows
			for i := edge; i < minutes-edge; i++ {
				if m.open[i] != m.open[i-1] || m.open[i] != m.open[i+1] || i%1009 == 0 {
					if err := m.check(w, i); err != nil {
						t.Fatalf("%s: %v", w, err)
					}
				}
				if now := begin.Add(time.Duration(i) * time.Minute); i%7 == 0 && w.Contains(now) != m.open[i] {
					t.Fatalf("%s: at %s: contains it: %v", w, now, !m.open[i])
				}
			}
		})
	}
}

// KEDA's streams ask every second.
func TestContainsAllocatesNothing(t *testing.T) {
	w := windows(t, "Mon-Fri 08:00-18:30 Asia/Seoul, Sat 22:00-06:00 Europe/Berlin, 2030-01-01T00:00:00Z-2030-01-02T00:00:00Z")
	for _, now := range []string{"2026-03-06T08:00:00+09:00", "2026-03-29T01:00:00Z"} {
		now := at(t, now)
		if n := testing.AllocsPerRun(100, func() { w.Contains(now) }); n != 0 {
			t.Errorf("at %s it allocates %v times", now, n)
		}
	}
}

func BenchmarkContains(b *testing.B) {
	for name, now := range map[string]time.Time{
		"an ordinary day": time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), "a change": time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC),
	} {
		b.Run(name, func(b *testing.B) {
			w := windows(b, "Mon-Fri 08:00-18:30 Europe/Berlin")
			for b.Loop() {
				w.Contains(now)
			}
		})
	}
}

// What parses is written in a form that parses to the same.
func FuzzParseWindows(f *testing.F) {
	for _, text := range []string{
		"Mon-Fri 08:00-18:30 Asia/Seoul, Sat 10:00-12:00 Asia/Seoul", "always", "never", "Sun-Sat 22:00-00:00 UTC", "08:00-18:30 utc",
		"2030-01-01T00:00:00+02:00-2030-01-02T12:00:00+02:00", "0000-01-01T00:00:00Z-9999-12-31T23:59:59-23:59", "Mon 00:00-24:00 etc/gmt+1",
	} {
		f.Add(text, int64(1_774_746_000))
	}
	f.Fuzz(func(t *testing.T, text string, seconds int64) {
		w, err := ParseWindows(text)
		if err != nil {
			return
		}
		again, err := ParseWindows(w.String())
		if err != nil || again.String() != w.String() || again.Empty() != w.Empty() {
			t.Fatalf("%q is written as %q, and that as %q, %v", text, w, again, err)
		}
		now := time.Unix(seconds%(400*366*day), 0)
		inside, until, next := w.Contains(now), w.Until(now), w.Next(now)
		if inside != again.Contains(now) {
			t.Errorf("%q and %q differ at %s", text, w, now)
		}
		if !until.IsZero() && (!inside || !until.After(now) || w.Contains(until)) {
			t.Errorf("%q: at %s, until is %s", text, now, until)
		}
		if !next.IsZero() && (!next.After(now) || !next.After(until) || !w.Contains(next)) {
			t.Errorf("%q: at %s, next is %s", text, now, next)
		}
	})
}
