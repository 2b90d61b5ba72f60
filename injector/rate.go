// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// rateSettings are the settings about scaling by the rate of requests.
func rateSettings() map[string]setting {
	return map[string]setting{"target-request-rate": func(s *Settings, v string) (string, bool) {
		var ok bool
		s.TargetRequestRate, ok = parseRate(v)
		return fmt.Sprintf("a number of requests each second such as 50 or 0.5, from %g to %d, with three decimals at most",
			api.MinRequestRate, api.MaxRequestRate), ok
	}}
}

// parseRate reads the value of the annotation target-request-rate. It allows no more decimals than KEDA counts with.
func parseRate(value string) (float64, bool) {
	whole, decimals, _ := strings.Cut(value, ".")
	if strings.Trim(whole+decimals, "0123456789") != "" || len(decimals) > 3 {
		return 0, false
	}
	rate, err := strconv.ParseFloat(value, 64)
	return rate, err == nil && validRate(rate)
}

// validRate reports whether rate can be the target of a replica.
func validRate(rate float64) bool { return rate >= api.MinRequestRate && rate <= api.MaxRequestRate }

// rateText writes a target rate as a user does.
func rateText(rate float64) string { return strconv.FormatFloat(rate, 'f', -1, 64) }
