// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// parseZone returns the time zone of this name in the IANA time zone database. The database may be the system's, which has further
// names; each of them begins with a small letter.
func parseZone(name string) (*time.Location, error) {
	const want = "want a name of the IANA time zone database, such as Europe/Berlin, Asia/Seoul or UTC"
	switch {
	case strings.EqualFold(name, "Local"):
		return nil, fmt.Errorf("%s is no time zone, because each machine has its own; %s", name, want)
	case name[0] >= 'A' && name[0] <= 'Z':
		if zone, err := time.LoadLocation(name); err == nil {
			return zone, nil
		}
	}
	if similar := similarZone(name); similar != "" {
		return nil, fmt.Errorf("time zone %q is unknown; %s is known", name, similar)
	}
	return nil, fmt.Errorf("time zone %q is unknown; %s", name, want)
}

// similarZone returns a time zone that differs from name only in upper and lower case; empty if it finds none.
func similarZone(name string) string {
	title, upper := titled(name), strings.ToUpper(name)
	region, city, _ := strings.Cut(title, "/")
	for _, other := range []string{title, upper, strings.ToUpper(region) + "/" + city, region + "/" + strings.ToUpper(city)} {
		if zone, err := time.LoadLocation(other); err == nil {
			return zone.String()
		}
	}
	return ""
}

// titled writes the words of a name with a capital, except those that the database's names write without.
func titled(name string) string {
	b := []byte(strings.ToLower(name))
	for i, c := range b {
		begins := i == 0 || strings.IndexByte("/_-+", b[i-1]) >= 0
		if begins && c >= 'a' && c <= 'z' {
			b[i] -= 'a' - 'A'
		}
	}
	return strings.NewReplacer("_Of_", "_of_", "_Es_", "_es_", "-Au-", "-au-").Replace(string(b))
}

// zoneClock is the clock on the wall in a time zone. What it shows is given in seconds since 1970 on that clock, and instants in
// seconds since 1970 in UTC.
type zoneClock struct {
	zone *time.Location
	// near is the period around an instant that matters.
	near period
}

// period is a time in which a clock is not set: it always is this number of seconds ahead of UTC. The end does not belong to it.
type period struct{ start, end, ahead int64 }

// clockAt returns the clock of a zone, which is fast near an instant.
func clockAt(zone *time.Location, at int64) zoneClock { return zoneClock{zone, periodOf(zone, at)} }

// periodOf returns the period of an instant. A period may be followed by another one that is the same number of seconds ahead.
func periodOf(zone *time.Location, at int64) period {
	t := time.Unix(at, 0).In(zone)
	_, ahead := t.Zone()
	p := period{math.MinInt64, math.MaxInt64, int64(ahead)}
	start, end := t.ZoneBounds()
	if !start.IsZero() {
		p.start = start.Unix()
	}
	if !end.IsZero() {
		p.end = end.Unix()
	}
	if p.end <= at { // on the last day of a leap year, ZoneBounds of Go 1.26 has the day before that as the end
		p.end = at + 60*minute
	}
	return p
}

// mostSet is more than a clock is ever set by, and more than it is ever ahead of UTC or behind.
const mostSet = 2 * day

// undisturbed returns the instant at which the clock shows this, if it is not set for a while before and after.
func (c zoneClock) undisturbed(shown int64) (at int64, ok bool) {
	at = shown - c.near.ahead
	return at, at-mostSet >= c.near.start && at+mostSet < c.near.end
}

// first returns when the clock first shows this or, if it skips this, something later.
func (c zoneClock) first(shown int64) int64 {
	if at, ok := c.undisturbed(shown); ok {
		return at
	}
	p := periodOf(c.zone, shown-mostSet)
	for shown-p.ahead >= p.end {
		p = periodOf(c.zone, p.end)
	}
	return max(p.start, shown-p.ahead)
}

// last returns when the clock shows this for the last time or, if it skips this, when it first shows something later.
func (c zoneClock) last(shown int64) int64 {
	if at, ok := c.undisturbed(shown); ok {
		return at
	}
	last := int64(math.MinInt64)
	for from := shown - mostSet; from <= shown+mostSet; {
		p := periodOf(c.zone, from)
		if at := shown - p.ahead; p.start <= at {
			last = max(last, min(at, p.end))
		}
		from = p.end
	}
	return last
}

// midnight returns what the clock shows at the beginning of the day of an instant, and which day of the week that is.
func (c zoneClock) midnight(at int64) (shown, today int64) {
	shown = at + c.near.ahead
	days := shown / day
	if shown%day < 0 {
		days--
	}
	const epoch = int64(time.Thursday)
	return days * day, ((days+epoch)%7 + 7) % 7
}
