// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import "testing"

func TestIdempotent(t *testing.T) {
	for method, want := range map[string]bool{
		"GET": true, "HEAD": true, "OPTIONS": true, "TRACE": true, "PUT": true, "DELETE": true,
		"POST": false, "PATCH": false, "CONNECT": false, "PROPFIND": false, "get": false, "": false,
	} {
		if idempotent(method) != want || idempotent([]byte(method)) != want {
			t.Errorf("%q is not %v", method, want)
		}
	}
}

func TestVerdict(t *testing.T) {
	for name, tc := range map[string]struct {
		failure failure
		first   verdict // if no pod has broken off yet
		later   verdict // if one has
	}{
		"nothing is known":                       {failure{}, giveUp, giveUp},
		"the pod could not be reached":           {failure{unsent: true}, again, again},
		"it is over before it was sent":          {failure{unsent: true, aborted: true}, giveUp, giveUp},
		"unsent, but some of it is gone":         {failure{unsent: true, incomplete: true}, giveUp, giveUp},
		"the pod broke off":                      {failure{brokenOff: true}, giveUp, giveUp},
		"the pod broke off, idempotent":          {failure{brokenOff: true, idempotent: true}, suspect, giveUp},
		"the same by an old connection":          {failure{brokenOff: true, idempotent: true, reused: true}, suspect, giveUp},
		"it broke off within the answer":         {failure{brokenOff: true, idempotent: true, answered: true}, giveUp, giveUp},
		"the client has gone meanwhile":          {failure{brokenOff: true, idempotent: true, aborted: true}, giveUp, giveUp},
		"the body is gone":                       {failure{brokenOff: true, idempotent: true, incomplete: true}, giveUp, giveUp},
		"what it said is no HTTP":                {failure{idempotent: true}, giveUp, giveUp},
		"reset before delivery":                  {failure{undelivered: true, brokenOff: true, reused: true}, suspect, giveUp},
		"ended in order before delivery":         {failure{undelivered: true, ended: true, brokenOff: true, reused: true}, again, again},
		"ended before delivery, but it is over":  {failure{undelivered: true, ended: true, aborted: true}, giveUp, giveUp},
		"ended in order, delivered":              {failure{ended: true, brokenOff: true}, giveUp, giveUp},
		"ended in order, delivered, idempotent":  {failure{ended: true, brokenOff: true, idempotent: true}, suspect, giveUp},
		"undelivered, but some of it is missing": {failure{undelivered: true, ended: true, incomplete: true}, giveUp, giveUp},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.failure.verdict(0); got != tc.first {
				t.Errorf("at first %v, want %v", got, tc.first)
			}
			if got := tc.failure.verdict(maxBroken); got != tc.later {
				t.Errorf("later %v, want %v", got, tc.later)
			}
		})
	}
}
