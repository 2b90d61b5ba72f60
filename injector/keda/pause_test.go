// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package keda

import (
	"testing"
)

func TestPauseOf(t *testing.T) {
	const in, out = PausedScaleInAnnotation, PausedScaleOutAnnotation
	for name, tc := range map[string]struct {
		annotations     map[string]string
		noWake, noSleep bool
		text            string
	}{
		"not paused":          {map[string]string{"autoscaling.keda.sh/validations": "true"}, false, false, ""},
		"kept up":             {map[string]string{ForceActivationAnnotation: "1"}, false, true, `autoscaling.keda.sh/force-activation: "1"`},
		"paused":              {map[string]string{PausedAnnotation: "true"}, true, true, `autoscaling.keda.sh/paused: "true"`},
		"paused: false":       {map[string]string{PausedAnnotation: "false"}, false, false, ""},
		"paused: no boolean":  {map[string]string{PausedAnnotation: "yes"}, true, true, `autoscaling.keda.sh/paused: "yes"`},
		"at zero":             {map[string]string{PausedReplicasAnnotation: "0"}, true, true, `autoscaling.keda.sh/paused-replicas: "0"`},
		"at two":              {map[string]string{PausedReplicasAnnotation: "2"}, false, true, `autoscaling.keda.sh/paused-replicas: "2"`},
		"at what is no count": {map[string]string{PausedReplicasAnnotation: ""}, true, true, `autoscaling.keda.sh/paused-replicas: ""`},
		"at two, paused: false": {
			map[string]string{PausedReplicasAnnotation: "2", PausedAnnotation: "false"}, false, true, `autoscaling.keda.sh/paused-replicas: "2"`,
		},
		"at two, and paused": {
			map[string]string{PausedReplicasAnnotation: "2", PausedAnnotation: "true"},
			false, true,
			`autoscaling.keda.sh/paused: "true", autoscaling.keda.sh/paused-replicas: "2"`,
		},
		"scale in":  {map[string]string{in: "true"}, false, true, in + `: "true"`},
		"scale out": {map[string]string{out: "true", in: "false"}, true, false, out + `: "true"`},
		"scale out, held at two": {
			map[string]string{out: "true", PausedReplicasAnnotation: "2"}, true, true, PausedReplicasAnnotation + `: "2", ` + out + `: "true"`,
		},
		"both directions, by two": {map[string]string{out: "1", in: "t"}, true, true, in + `: "t", ` + out + `: "1"`},
	} {
		t.Run(name, func(t *testing.T) {
			p := PauseOf(tc.annotations)
			if p.NoWake != tc.noWake || p.NoSleep != tc.noSleep || p.String() != tc.text {
				t.Errorf("no wake %v, no sleep %v, %s", p.NoWake, p.NoSleep, p)
			}
		})
	}
}
