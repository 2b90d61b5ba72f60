// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestInterceptorIngress(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		flags policyFlags
		rules int
		fails string
	}{
		"none":              {policyFlags{}, 0, ""},
		"two rules":         {policyFlags{follow: true, own: `[{"ports":[{"port":9090}]},{"from":[{"podSelector":{}}]}]`}, 2, ""},
		"without following": {policyFlags{own: `[{}]`}, 0, "needs --follow-network-policies"},
		"no list":           {policyFlags{follow: true, own: `{}`}, 0, "is not a list"},
		"no rule":           {policyFlags{follow: true, own: `[]`}, 0, "has no rule"},
		"unknown field":     {policyFlags{follow: true, own: `[{"form":[]}]`}, 0, "unknown field"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules, err := tc.flags.ingress()
			switch {
			case len(rules) != tc.rules:
				t.Errorf("%d rules, want %d", len(rules), tc.rules)
			case (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails):
				t.Errorf("error %v, want %q", err, tc.fails)
			}
		})
	}
}
