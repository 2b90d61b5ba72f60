// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"

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
