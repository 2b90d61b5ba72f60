// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

var noon = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// TestLifeNext tests each cell of Life's table.
func TestLifeNext(t *testing.T) {
	before, now := noon.Add(-time.Hour), noon
	asleep := Life{Known: true, Asleep: true, Since: before, Seen: true}
	waking := Life{Known: true, Since: before.Add(-time.Hour), Woken: before, Seen: true}
	awake := Life{Known: true, Awake: true, Since: before, Woken: before.Add(-time.Minute), Seen: true}
	type look struct {
		replicas int32
		serves   bool
	}
	zero, none, one := look{}, look{1, false}, look{1, true}
	for name, tc := range map[string]struct {
		was  Life
		look look
		want Life
	}{
		"first look, asleep": {Life{}, zero, Life{Known: true, Asleep: true, Since: now, Woken: now}},
		"first look, waking": {Life{}, none, Life{Known: true, Since: now, Woken: now}},
		"first look, awake":  {Life{}, one, Life{Known: true, Awake: true, Since: now, Woken: now}},
		"asleep, asleep":     {asleep, zero, asleep},
		"asleep, waking":     {asleep, none, Life{Known: true, Since: before, Woken: now, Seen: true}},
		"asleep, awake":      {asleep, one, Life{Known: true, Awake: true, Since: now, Woken: now, Seen: true}},
		"waking, asleep":     {waking, zero, Life{Known: true, Asleep: true, Since: now, Seen: true}},
		"waking, waking":     {waking, none, waking},
		"waking, awake":      {waking, one, Life{Known: true, Awake: true, Since: now, Woken: before, Seen: true}},
		"awake, asleep":      {awake, zero, Life{Known: true, Asleep: true, Since: now, Seen: true}},
		"awake, restarting":  {awake, none, awake},
		"awake, awake":       {awake, one, awake},
		"serves at zero":     {asleep, look{0, true}, asleep},
	} {
		t.Run(name, func(t *testing.T) {
			got := tc.was.Next(now, tc.look.replicas, tc.look.serves, false)
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if d := cmp.Diff(got, got.Next(now, tc.look.replicas, tc.look.serves, false)); d != "" {
				t.Errorf("another look at the same changes it (-once +twice):\n%s", d)
			}
			if fell := got.FellAsleep(tc.was); fell != (tc.was.Known && got.Asleep && !tc.was.Asleep) {
				t.Errorf("fell asleep: %t", fell)
			}
			if woke := got.Awoke(tc.was); woke != (tc.was.Known && got.Awake && !tc.was.Awake) {
				t.Errorf("awoke: %t", woke)
			}
		})
	}
}

// TestLifeIsOne tests that a workload is always exactly one of asleep, waking and awake, and that it falls asleep or wakes up only
// from another state.
func TestLifeIsOne(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 2))
		var was Life
		now := noon
		for range 50 {
			now = now.Add(time.Duration(random.IntN(600)) * time.Second)
			replicas := int32(random.IntN(3))
			is := was.Next(now, replicas, random.IntN(2) == 0, random.IntN(5) == 0)
			switch {
			case is.Asleep && is.Awake:
				t.Fatalf("seed %d: asleep and awake: %+v", seed, is)
			case is.Asleep != (replicas == 0):
				t.Fatalf("seed %d: %d replicas and %+v", seed, replicas, is)
			case is.FellAsleep(was) && is.Awoke(was):
				t.Fatalf("seed %d: it fell asleep and awoke", seed)
			case is.Since.After(now) || is.Woken.After(now) || is.Bypassed.After(now):
				t.Fatalf("seed %d: %+v is of the future of %s", seed, is, now)
			case is.Asleep && was.Known && !is.Woken.IsZero() && !was.Asleep:
				t.Fatalf("seed %d: it sleeps and has woken: %+v", seed, is)
			case !is.Known:
				t.Fatalf("seed %d: it is not known", seed)
			}
			was = is
		}
	}
}

// TestBypassed tests that the interceptors cannot say that there was no request while requests bypassed them.
func TestBypassed(t *testing.T) {
	type look struct {
		after     time.Duration
		bypassing bool
	}
	past, through := true, false
	for name, tc := range map[string]struct {
		looks []look
		want  time.Duration
	}{
		"never":                 {[]look{{0, through}, {time.Minute, through}}, time.Hour},
		"until it was injected": {[]look{{0, past}, {2 * time.Hour, through}, {time.Minute, through}}, time.Minute},
		"until it failed closed": {[]look{{0, through}, {time.Minute, past}, {2 * time.Hour, through}, {time.Second, through}, {
			time.Second,
			through,
		}}, 2 * time.Second},
		"long ago":       {[]look{{0, past}, {time.Minute, through}, {2 * time.Hour, through}}, time.Hour},
		"to this moment": {[]look{{0, past}, {2 * time.Hour, through}}, 0},
		"still":          {[]look{{0, past}, {time.Minute, past}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			now := noon
			var was, is Life
			for _, look := range tc.looks {
				now = now.Add(look.after)
				was, is = is, is.Next(now, 0, false, look.bypassing)
			}
			use := Use{Idle: time.Hour, Counted: time.Hour}
			p := storyteller{&workloadPlanner{o: &WorkloadObservation{Now: now}, d: demand{services: []*corev1.Service{service()}}}}
			got := p.slept(was, is, &use)
			if got.Use.Counted != tc.want || use.Counted != time.Hour {
				t.Errorf("counted for %s, want %s", got.Use.Counted, tc.want)
			}
		})
	}
}

func TestLifeKeptUp(t *testing.T) {
	s := Scaling{MinReplicas: 0, Cooldown: 5 * time.Minute}
	scaledObject := func(least int32) *keda.ScaledObject {
		return &keda.ScaledObject{Spec: keda.ScaledObjectSpec{MinReplicaCount: &least}}
	}
	for name, tc := range map[string]struct {
		life      Life
		so        *keda.ScaledObject
		uncounted bool
		want      time.Duration
		since     time.Time
	}{
		"nothing went past":            {Life{}, nil, false, 0, time.Time{}},
		"traffic goes past":            {Life{}, nil, true, 5 * time.Minute, noon},
		"it goes past again":           {Life{Uncounted: noon.Add(-time.Hour)}, nil, true, 5 * time.Minute, noon},
		"it went past a minute ago":    {Life{Uncounted: noon.Add(-time.Minute)}, nil, false, 4 * time.Minute, noon.Add(-time.Minute)},
		"it went past long ago":        {Life{Uncounted: noon.Add(-time.Hour)}, nil, false, 0, noon.Add(-time.Hour)},
		"another controller held it":   {Life{}, scaledObject(1), false, 5 * time.Minute, noon},
		"another one did not":          {Life{}, scaledObject(0), false, 0, time.Time{}},
		"this one knows better":        {Life{Uncounted: noon.Add(-time.Hour)}, scaledObject(1), false, 0, noon.Add(-time.Hour)},
		"a ScaledObject without bound": {Life{}, &keda.ScaledObject{}, false, 0, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			held, life := tc.life.KeptUp(noon, s, tc.so, tc.uncounted)
			if held != tc.want || !life.Uncounted.Equal(tc.since) {
				t.Errorf("held for %s since %s, want %s since %s", held, life.Uncounted, tc.want, tc.since)
			}
		})
	}
}

func TestLifeLimit(t *testing.T) {
	most := func(n int32) *keda.ScaledObject {
		return &keda.ScaledObject{Spec: keda.ScaledObjectSpec{MaxReplicaCount: &n}}
	}
	for name, tc := range map[string]struct {
		within, replicas, max int32
		so                    *keda.ScaledObject
		limit, then           int32
	}{
		"within the limit":                    {0, 2, 3, nil, 3, 2},
		"beyond it":                           {0, 4, 3, nil, 3, 0},
		"the limit fell":                      {5, 5, 1, nil, 5, 5},
		"the limit fell, and some are gone":   {5, 3, 1, nil, 5, 3},
		"and then somebody asked for more":    {3, 4, 1, nil, 3, 3},
		"asleep":                              {3, 0, 1, nil, 3, 0},
		"another controller's limit":          {0, 5, 1, most(5), 5, 5},
		"this one knows better":               {1, 5, 1, most(5), 1, 1},
		"a ScaledObject that says no maximum": {0, 2, 1, &keda.ScaledObject{}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			limit, life := Life{Within: tc.within}.Limit(tc.replicas, Scaling{MaxReplicas: tc.max}, tc.so)
			if limit != tc.limit || life.Within != tc.then {
				t.Errorf("limit %d, then %d; want %d, %d", limit, life.Within, tc.limit, tc.then)
			}
		})
	}
}

func TestLifeUp(t *testing.T) {
	const hour = time.Hour
	for name, tc := range map[string]struct {
		life    Life
		hold    time.Duration
		failing bool
		want    time.Duration
	}{
		"awake":                             {Life{Awake: true, Since: noon.Add(-hour), Woken: noon.Add(-2 * hour)}, 0, false, hour},
		"awake, and a rollout fails":        {Life{Awake: true, Since: noon.Add(-hour)}, 0, true, hour},
		"starting":                          {Life{Woken: noon.Add(-9 * time.Minute)}, 0, false, 0},
		"starting for too long":             {Life{Woken: noon.Add(-11 * time.Minute)}, 0, false, 11 * time.Minute},
		"starting, and somebody may wait":   {Life{Woken: noon.Add(-11 * time.Minute)}, 20 * time.Minute, false, 0},
		"starting, and it certainly fails":  {Life{Woken: noon.Add(-time.Minute)}, 0, true, time.Minute},
		"starting for as long as it has is": {Life{Woken: noon.Add(-api.StartTime(0))}, 0, false, api.StartTime(0)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.life.Up(noon, tc.hold, tc.failing); got != tc.want {
				t.Errorf("up for %s, want %s", got, tc.want)
			}
		})
	}
}

func TestStartingFrom(t *testing.T) {
	for name, tc := range map[string]struct {
		progress api.Progress
		known    bool
		reported int
	}{
		"nothing":  {api.Progress{}, false, 0},
		"a stage":  {api.Progress{Stage: api.StagePulling}, true, 0},
		"a failed": {api.Progress{Failing: "no image", Reason: "ImagePullBackOff"}, true, 1},
		"a pause":  {api.Progress{Paused: &api.Pause{Why: "paused"}}, true, 0},
		"starts":   {api.Progress{Starts: []api.Duration{1}}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, known := StartingFrom(tc.progress)
			if known != tc.known || len(s.Reported) != tc.reported || s.Suspect != tc.progress.Reason || !cmp.Equal(s.Progress, tc.progress) {
				t.Errorf("%+v, known %t", s, known)
			}
		})
	}
}

// TestStartingOver tests that the duration of a start is kept unless the start needed a fix.
func TestStartingOver(t *testing.T) {
	six := []api.Duration{1, 2, 3, 4, 5}
	for name, tc := range map[string]struct {
		starting Starting
		want     []api.Duration
	}{
		"it was seen to begin": {Starting{Left: noon.Add(-3 * time.Second)}, []api.Duration{api.Duration(3 * time.Second)}},
		"it was not":           {Starting{}, nil},
		"it needed a fix":      {Starting{Left: noon.Add(-time.Hour), Reported: []string{"ImagePullBackOff"}}, nil},
		"five are kept": {
			Starting{Left: noon.Add(-3 * time.Second), Progress: api.Progress{Starts: six}},
			[]api.Duration{api.Duration(3 * time.Second), 1, 2, 3, 4},
		},
		"a pod came back": {Starting{Progress: api.Progress{Starts: six, Failing: "x"}}, six},
		"to a hundredth of a second": {
			Starting{Left: noon.Add(-1234567 * time.Microsecond)},
			[]api.Duration{api.Duration(1230 * time.Millisecond)},
		},
		"what else is written is not": {Starting{Progress: api.Progress{Stage: api.StageNotReady, Reason: "x"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := tc.starting.over(noon, time.Time{})
			if d := cmp.Diff(Starting{Progress: api.Progress{Starts: tc.want}}, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestStartingBegun(t *testing.T) {
	s := Starting{Asleep: true}.begun(noon)
	if s.Asleep || !s.Left.Equal(noon) || !s.Waiting.Equal(noon) {
		t.Errorf("%+v", s)
	}
	if again := s.begun(noon.Add(time.Second)); !cmp.Equal(s, again) {
		t.Errorf("it begins again: %+v", again)
	}
	if s := (Starting{}).begun(noon); !s.Left.IsZero() || !s.Waiting.Equal(noon) {
		t.Errorf("not from sleep: %+v", s)
	}
}

func TestStartingLooks(t *testing.T) {
	for _, tc := range []struct {
		waiting, looked time.Duration // how long before noon
		until, next     time.Duration
	}{
		{0, time.Hour, firstLook, minLook},
		{200 * time.Millisecond, time.Hour, 300 * time.Millisecond, minLook},
		{time.Second, time.Hour, -500 * time.Millisecond, minLook},
		{5 * time.Second, 400 * time.Millisecond, 600 * time.Millisecond, minLook},
		{30 * time.Second, 3 * time.Second, -2 * time.Second, 3 * time.Second},
		{time.Hour, time.Hour, -(time.Hour - minLook), renewal / 2},
	} {
		t.Run(fmt.Sprint(tc.waiting), func(t *testing.T) {
			s := Starting{Waiting: noon.Add(-tc.waiting), Looked: noon.Add(-tc.looked)}
			if got := s.untilLook(noon); got != tc.until {
				t.Errorf("looks in %s, want %s", got, tc.until)
			}
			if got := s.nextLook(noon); got != tc.next {
				t.Errorf("looks again after %s, want %s", got, tc.next)
			}
		})
	}
}

// TestStartingNext tests that a failure counts once it has lasted as long as its doubt, and ends when another pod may start.
func TestStartingNext(t *testing.T) {
	pulls := Start{Stage: api.StagePulling, Failing: "its image cannot be pulled", Reason: "ImagePullBackOff", Doubt: 10 * time.Second}
	sure := pulls
	sure.Doubt = 0
	crash := Start{Stage: api.StageStarting, Failing: "it ends", Reason: "CrashLoopBackOff"}
	starts := Start{Stage: api.StageStarting}
	type look struct {
		after time.Duration
		start Start
		fails string
		seen  time.Duration // since noon
	}
	for name, looks := range map[string][]look{
		"certain at once": {{0, sure, "ImagePullBackOff", 0}},
		"certain after a while": {{0, pulls, "", 0}, {9 * time.Second, pulls, "", 0}, {
			time.Second, pulls, "ImagePullBackOff",
			10 * time.Second,
		}},
		"for another reason":     {{0, pulls, "", 0}, {9 * time.Second, crash, "CrashLoopBackOff", 9 * time.Second}},
		"and it passes":          {{0, sure, "ImagePullBackOff", 0}, {time.Second, starts, "", 0}},
		"and comes back":         {{0, sure, "ImagePullBackOff", 0}, {time.Second, starts, "", 0}, {time.Second, pulls, "", 0}},
		"it is not renewed yet":  {{0, sure, "ImagePullBackOff", 0}, {9 * time.Second, sure, "ImagePullBackOff", 0}},
		"it is renewed":          {{0, sure, "ImagePullBackOff", 0}, {10 * time.Second, sure, "ImagePullBackOff", 10 * time.Second}},
		"in doubt, once certain": {{0, sure, "ImagePullBackOff", 0}, {time.Second, pulls, "ImagePullBackOff", 0}},
		"nothing is known":       {{0, Start{}, "", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			now, s := noon, Starting{Progress: api.Progress{Starts: []api.Duration{1}}}
			for i, look := range looks {
				now = now.Add(look.after)
				s = s.next(look.start, now)
				failing := s.Progress.Reason
				if failing != look.fails || (s.Progress.Failing != "") != (look.fails != "") || len(s.Progress.Starts) != 1 {
					t.Fatalf("look %d: %+v, want %q", i, s.Progress, look.fails)
				}
				if look.fails != "" && !s.Progress.Seen.Equal(noon.Add(look.seen)) {
					t.Errorf("look %d: seen %s", i, s.Progress.Seen)
				}
				if want := look.start.Stage; s.Progress.Stage != want && (want != "" || s.Progress.Stage != api.StageScheduling) {
					t.Errorf("look %d: stage %s", i, s.Progress.Stage)
				}
			}
		})
	}
}

func TestOutcome(t *testing.T) {
	var out Outcome
	out.after(0)
	if out.After != 0 {
		t.Error("asks for a look at no time")
	}
	out.after(time.Minute)
	out.after(time.Hour)
	out.after(time.Second)
	if out.After != time.Second {
		t.Errorf("looks in %s", out.After)
	}
	if got := out.waited("a pod", noon); got != 0 {
		t.Errorf("waited for %s", got)
	}
	if got := out.waited("a pod", noon.Add(time.Minute)); got != time.Minute {
		t.Errorf("waited for %s", got)
	}
	if got := out.waited("a node", noon.Add(time.Hour)); got != 0 {
		t.Errorf("waited for %s for something new", got)
	}
	s := service()
	if !out.once("Normal", "A", "1", s, nil) || out.once("Normal", "A", "1", s) || !out.once("Normal", "A", "2", s) {
		t.Errorf("reports %+v", out.Reports)
	}
	if len(out.Reports) != 2 || len(out.Reports[0].Objects) != 1 {
		t.Errorf("reports %+v", out.Reports)
	}
	copied := out.clone()
	copied.lasting("Warning", "B", "note", s)
	if len(copied.Reports) != 3 || !copied.Reports[2].Lasting || len(out.Reports) != 2 || out.Memory.Reported["B"] != "" {
		t.Errorf("copied %+v of %+v", copied, out)
	}
	copied.lasting("Warning", "B", "")
	if copied.ended("B") || !copied.ended("A") || copied.ended("A") {
		t.Errorf("remembers %v", copied.Memory.Reported)
	}
}
