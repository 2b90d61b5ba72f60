// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// pupil is a workload that wakes and sleeps, and calls others.
type pupil struct {
	*scaledWorld
}

func newPupil(t *testing.T) *pupil {
	t.Helper()
	l := &pupil{newScaledWorld(t)}
	settled(l.scaledWorld)
	l.sleep()
	return l
}

// wake wakes the workload, which calls the named ones a second later. A name with ! is asleep when it is called.
func (l *pupil) wake(calls ...string) {
	l.t.Helper()
	wakes(l.scaledWorld)
	l.reconcile()
	l.now = l.now.Add(time.Second)
	isReady(l.scaledWorld)
	l.reconcile()
	l.calls = map[string]Call{}
	for _, name := range calls {
		other, asleep := strings.CutSuffix(name, "!")
		l.calls["Deployment/"+other] = Call{At: l.now, Asleep: asleep}
	}
	l.reconcile()
	l.reconcile()
}

func (l *pupil) sleep() {
	l.t.Helper()
	l.now = l.now.Add(time.Hour)
	sleeps(l.scaledWorld)
	l.reconcile()
}

func (l *pupil) cycle(calls ...string) {
	l.t.Helper()
	l.wake(calls...)
	l.sleep()
}

// restart loses what the controller remembers.
func (l *pupil) restart() { l.memory, l.calls = WorkloadMemory{}, nil }

func (l *pupil) want(what, learned string, told ...string) {
	l.t.Helper()
	if got := l.asks[0].Slice.Annotations[api.LearnedAnnotation]; got != learned {
		l.t.Errorf("%s: learned %s, want %s", what, got, learned)
	}
	var events []string
	for _, e := range l.events {
		if note, ok := strings.CutPrefix(e, ReasonTogether+": "); ok {
			events = append(events, note)
		}
	}
	l.events = nil
	if !reflect.DeepEqual(events, told) {
		l.t.Errorf("%s: events %q, want %q", what, events, told)
	}
}

const (
	learnedNote = `Deployment/web has called Deployment/api in 2 of its wakes: from now on, waking it wakes Deployment/api too. ` +
		`Annotation scale-to-zero/learn="false" on a Service of either turns this off`
	forgottenNote = `Deployment/web was not seen to call Deployment/api in its last 10 wakes: waking it no longer wakes Deployment/api`
)

func TestLearnsWhatItCalls(t *testing.T) {
	l := newPupil(t)
	l.want("at first", "")
	l.wake("api!", "decoy!", "busy")
	l.want("the first wake", `{"Deployment/api":{"found":1},"Deployment/decoy":{"found":1}}`)
	l.sleep()
	l.want("its end", `{"Deployment/api":{"found":1},"Deployment/decoy":{"found":1}}`)
	l.wake("api!")
	l.want("the second wake", `{"Deployment/api":{"found":2},"Deployment/decoy":{"found":1}}`, learnedNote)
	l.sleep()
	l.want("its end", `{"Deployment/api":{"found":2},"Deployment/decoy":{"found":1,"missed":1}}`)
	l.cycle("api")
	l.want("it is awake already", `{"Deployment/api":{"found":2},"Deployment/decoy":{"found":1,"missed":2}}`)

	for range 7 {
		l.cycle()
	}
	l.want("seven misses", `{"Deployment/api":{"found":2,"missed":7},"Deployment/decoy":{"found":1,"missed":9}}`)
	l.cycle("api!")
	l.want("a call in between", `{"Deployment/api":{"found":2}}`)
	for range 9 {
		l.cycle()
	}
	l.want("nine misses", `{"Deployment/api":{"found":2,"missed":9}}`)
	l.cycle()
	l.want("ten", "", forgottenNote)
	l.cycle("api!")
	l.want("it begins anew", `{"Deployment/api":{"found":1}}`)
}

func TestLearningSurvivesTheController(t *testing.T) {
	l := newPupil(t)
	l.cycle("api!")
	l.restart()
	l.reconcile()
	l.cycle("api!")
	l.want("the second wake is another controller's", `{"Deployment/api":{"found":2}}`, learnedNote)

	l.wake()
	l.restart()
	l.reconcile()
	l.sleep()
	l.want("nobody has seen the whole wake", `{"Deployment/api":{"found":2}}`)
	l.cycle("api!")
	l.restart()
	l.calls = map[string]Call{"Deployment/api": {At: l.now.Add(-time.Hour), Asleep: true}}
	l.reconcile()
	l.wake()
	l.calls = map[string]Call{"Deployment/api": {At: l.now.Add(-2 * time.Hour), Asleep: true}}
	l.reconcile()
	l.sleep()
	l.want("a call of an earlier wake", `{"Deployment/api":{"found":2,"missed":1}}`)
}

func TestLearnsNothing(t *testing.T) {
	t.Run("learning is off", func(t *testing.T) {
		l := newPupil(t)
		l.cycle("api!")
		l.cycle("api!")
		l.want("on", `{"Deployment/api":{"found":2}}`, learnedNote)
		l.asks[0].Routes.NoLearning = true
		l.reconcile()
		l.want("off", "")
		l.cycle("api!")
		l.want("off, and a call", "")
	})
	t.Run("it was never seen to wake", func(t *testing.T) {
		l := &pupil{newScaledWorld(t)}
		l.reconcile()
		l.calls = map[string]Call{"Deployment/api": {At: l.now.Add(time.Second), Asleep: true}}
		l.now = l.now.Add(2 * time.Second)
		l.reconcile()
		l.want("", "")
	})
	t.Run("its pods have their nodes' addresses", func(t *testing.T) {
		l := newPupil(t)
		l.workload.Template = &corev1.PodTemplateSpec{Spec: corev1.PodSpec{HostNetwork: true}}
		l.wake("api!")
		l.want("others may have called", "")
	})
	t.Run("a pod that replaces another one", func(t *testing.T) {
		l := newPupil(t)
		l.wake()
		l.now = l.now.Add(time.Hour)
		l.calls = map[string]Call{"Deployment/api": {At: l.now, Asleep: true}}
		l.reconcile()
		l.want("long after the wake", "")
	})
	t.Run("a failing plan", func(t *testing.T) {
		l := newPupil(t)
		wakes(l.scaledWorld)
		l.reconcile()
		l.calls = map[string]Call{"Deployment/api": {At: l.now, Asleep: true}}
		for range 3 {
			l.fails = true
			l.reconcile()
		}
		l.reconcile()
		l.want("it is one call", `{"Deployment/api":{"found":1}}`)
	})
	t.Run("too many", func(t *testing.T) {
		l := newPupil(t)
		var calls []string
		for i := range api.MaxLearned + 5 {
			calls = append(calls, fmt.Sprintf("app%02d!", i))
		}
		l.cycle(calls...)
		l.cycle(append(calls, "zz!")...)
		learned, err := api.DecodeLearned(l.asks[0].Slice.Annotations[api.LearnedAnnotation])
		if err != nil || len(learned) != api.MaxLearned || !learned["Deployment/app19"].Together() {
			t.Errorf("%v, %v", learned, err)
		}
	})
	t.Run("it never became ready", func(t *testing.T) {
		l := newPupil(t)
		l.cycle("api!")
		wakes(l.scaledWorld)
		l.reconcile()
		l.sleep()
		l.want("that is no miss", `{"Deployment/api":{"found":1}}`)
	})
}

func TestLearnedAnnotation(t *testing.T) {
	for value, want := range map[string]string{
		"": "[]", "{": "",
		`{"Deployment/api":{"found":2},"Deployment/b":{"found":1},"Deployment/a":{"found":3,"missed":9}}`: "[Deployment/a Deployment/api]",
	} {
		l, err := api.DecodeLearned(value)
		if got := fmt.Sprint(l.Together()); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%s: %s, %v", value, got, err)
		}
	}
	many := api.Learned{}
	for i := range api.MaxLearned + 1 {
		many[fmt.Sprint(i)] = api.Calls{Found: 2}
	}
	value, err := many.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.DecodeLearned(value); err == nil {
		t.Error("more than may be remembered")
	}
	if _, err := api.DecodeLearned(`{"Deployment/api":{"found":2,"missed":-1000000}}`); err == nil {
		t.Error("what would never be forgotten")
	}
}

func TestLearnSetting(t *testing.T) {
	for value, off := range map[string]bool{"true": false, "false": true} {
		s, err := ParseSettings(map[string]string{Prefix + "learn": value})
		if err != nil || s.NoLearning != off {
			t.Errorf("%s: %+v, %v", value, s, err)
		}
		if r := NewRoutes(service(), s, workload("Deployment", "web", nil), nil); r.NoLearning != off {
			t.Errorf("%s: routes %+v", value, r)
		}
	}
	_, err := ParseSettings(map[string]string{Prefix + "learn": "never"})
	if err == nil || !strings.Contains(err.Error(), `"true" or "false"`) {
		t.Errorf("never: %v", err)
	}
}
