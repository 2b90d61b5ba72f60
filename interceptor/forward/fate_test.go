// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import "testing"

func TestFate(t *testing.T) {
	for name, tc := range map[string]struct {
		head headFacts
		want fate
	}{
		"both go on":                      {headFacts{podKeeps: true}, fate{client: true, pod: true}},
		"the client's last request":       {headFacts{podKeeps: true, last: true}, fate{client: false, pod: true}},
		"draining":                        {headFacts{podKeeps: true, draining: true}, fate{client: false, pod: true}},
		"chunks taken out":                {headFacts{podKeeps: true, plain: true}, fate{client: false, pod: true}},
		"ended by the connection":         {headFacts{podKeeps: true, untilEnd: true}, fate{client: false, pod: false}},
		"something behind the answer":     {headFacts{podKeeps: true, surplus: true}, fate{client: true, pod: false}},
		"the pod closes":                  {headFacts{podKeeps: true, podCloses: true}, fate{client: true, pod: false}},
		"a pod of 1.0":                    {headFacts{}, fate{client: true, pod: false}},
		"a pod of 1.0 that sends chunks":  {headFacts{podKeeps: true, chunksOf10: true}, fate{client: true, pod: false}},
		"the last one, and the pod's too": {headFacts{last: true, podCloses: true, podKeeps: true}, fate{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.head.fate(); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestOutcome(t *testing.T) {
	both, client, pod, none := fate{true, true}, fate{client: true}, fate{pod: true}, fate{}
	for name, tc := range map[string]struct {
		fate  fate
		body  bodyFacts
		want  outcome
		keeps bool
	}{
		"both go on":                         {both, bodyFacts{}, reusable, true},
		"the pod's ends":                     {client, bodyFacts{}, reusable, false},
		"the client's ends":                  {pod, bodyFacts{}, finished, true},
		"both end":                           {none, bodyFacts{}, finished, false},
		"it could not be passed on":          {both, bodyFacts{failed: true}, finished, false},
		"something behind the answer":        {both, bodyFacts{surplus: true}, reusable, false},
		"the body was carried meanwhile":     {both, bodyFacts{streamed: true}, reusable, false},
		"some of it was not":                 {both, bodyFacts{streamed: true, unsent: true}, lingering, false},
		"some of it was not, and it ends":    {none, bodyFacts{streamed: true, unsent: true}, lingering, false},
		"the client sent more":               {both, bodyFacts{more: true}, reusable, true},
		"the client sent more, and it ends":  {pod, bodyFacts{more: true}, lingering, true},
		"it failed while the client sent on": {none, bodyFacts{failed: true, unsent: true, more: true}, finished, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got, keeps := tc.fate.outcome(tc.body), tc.fate.keepsPod(tc.body); got != tc.want || keeps != tc.keeps {
				t.Errorf("got %v, keeps the pod's %v; want %v, %v", got, keeps, tc.want, tc.keeps)
			}
		})
	}
}
