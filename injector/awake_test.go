// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"testing"
)

func TestAwakeSetting(t *testing.T) {
	for _, value := range []string{"Mon-Fri 08:00-18:30 Asia/Seoul, Sat 10:00-12:00 Asia/Seoul", "always", "never"} {
		if s, err := ParseSettings(map[string]string{Prefix + "awake": value}); err != nil || s.Awake != value {
			t.Errorf("%q: got %q, %v", value, s.Awake, err)
		}
	}
	const allowed = `allowed is at most 20 windows such as "Mon-Fri 08:00-18:30 Asia/Seoul, Sat 10:00-12:00 Asia/Seoul", or always, or never; `
	for value, why := range map[string]string{
		"":                               "it is empty; the word never stands for no window",
		"Mon-Fri 08:00-18:30 asia/seoul": `window 1 is "Mon-Fri 08:00-18:30 asia/seoul": time zone "asia/seoul" is unknown; Asia/Seoul is known`,
	} {
		want := `annotation scale-to-zero/awake: "` + value + `" is not allowed: ` + allowed + why
		if _, err := ParseSettings(map[string]string{Prefix + "awake": value}); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", value, err, want)
		}
	}
}
