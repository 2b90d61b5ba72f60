// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/text/language"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// texts are the texts in one language.
type texts struct {
	lang             string
	starting         string // titles; take the app's name
	failed, paused   string
	stages           map[string]string
	failing, resting string // instead of a stage: of a failed start, and of an app that must not wake
	// reasons translates a Progress's Reason, which is put before Failing's English text; nil for English.
	reasons          map[string]string
	usual, late      string // take a duration
	opens, keepsOn   string // what the page does
	resumes          string // what it does about an app that must not wake
	waiting          string // before a clock
	seconds, minutes func(int) string
}

func english() *texts {
	number := func(unit string) func(int) string {
		return func(n int) string {
			if n != 1 {
				return fmt.Sprintf("%d %ss", n, unit)
			}
			return "1 " + unit
		}
	}
	return &texts{
		lang: "en", starting: "%s is starting", failed: "%s cannot start", paused: "%s is asleep",
		stages: map[string]string{
			"":                  "Waking it up",
			api.StageScheduling: "Looking for a place to run",
			api.StagePulling:    "Downloading the app",
			api.StageStarting:   "Starting the app",
			api.StageNotReady:   "Started, and getting ready",
		},
		failing: "This keeps it from starting:",
		resting: "It does not wake at present:",
		usual:   "Usually ready in about %s.",
		late:    "This takes longer than usual, which is about %s.",
		opens:   "It opens here by itself as soon as it is ready.",
		keepsOn: "It opens here by itself once it can start.",
		resumes: "It opens here by itself once it may wake.",
		waiting: "Waiting for",
		seconds: number("second"), minutes: number("minute"),
	}
}

func korean() *texts {
	return &texts{
		lang: "ko", starting: "%s 시작 중", failed: "%s 시작 불가", paused: "%s 잠자는 중",
		stages: map[string]string{
			"":                  "앱을 깨우고 있습니다",
			api.StageScheduling: "실행할 곳을 찾고 있습니다",
			api.StagePulling:    "앱을 내려받고 있습니다",
			api.StageStarting:   "앱을 시작하고 있습니다",
			api.StageNotReady:   "앱이 실행되어 준비를 마치고 있습니다",
		},
		failing: "다음 문제로 앱을 시작하지 못하고 있습니다",
		resting: "지금은 다음 이유로 앱을 깨우지 않습니다",
		reasons: map[string]string{
			"ImagePullBackOff":           "앱의 이미지를 내려받을 수 없습니다.",
			"InvalidImageName":           "앱의 이미지 이름이 올바르지 않습니다.",
			"ErrImageNeverPull":          "앱의 이미지가 노드에 없고, 내려받지 않도록 설정되어 있습니다.",
			"SignatureValidationFailed":  "앱의 이미지 서명이 올바르지 않습니다.",
			"CrashLoopBackOff":           "앱이 시작하자마자 거듭 종료되고 있습니다.",
			"CreateContainerConfigError": "설정에 문제가 있어 앱의 컨테이너를 만들 수 없습니다.",
			"CreateContainerError":       "앱의 컨테이너를 만들 수 없습니다.",
			"PreCreateHookError":         "앱의 컨테이너를 만들 수 없습니다.",
			"PreStartHookError":          "앱의 컨테이너를 만들 수 없습니다.",
			"RunContainerError":          "앱의 컨테이너를 실행할 수 없습니다.",
			"PostStartHookError":         "앱의 컨테이너를 실행할 수 없습니다.",
			"Unschedulable":              "앱을 실행할 수 있는 노드가 없습니다.",
			"FailedCreate":               "쿠버네티스가 앱의 파드를 만들지 못하게 하고 있습니다.",
			api.ReasonUnreachable:        "앱의 파드에 연결할 수 없습니다.",
			api.ReasonPaused:             "앱의 관리자가 앱을 재워 두었습니다.",
		},
		usual:   "준비되기까지 보통 %s쯤 걸립니다.",
		late:    "평소(%s쯤)보다 오래 걸리고 있습니다.",
		opens:   "준비되면 이 자리에서 바로 열립니다.",
		keepsOn: "문제가 해결되어 시작되면 이 자리에서 바로 열립니다.",
		resumes: "앱을 다시 깨울 수 있게 되면 이 자리에서 바로 열립니다.",
		waiting: "기다린 시간",
		seconds: func(n int) string { return fmt.Sprintf("%d초", n) },
		minutes: func(n int) string { return fmt.Sprintf("%d분", n) },
	}
}

// duration returns d as text. Wait.Usual has rounded it.
func (t *texts) duration(d time.Duration) string {
	if d%time.Minute == 0 {
		return t.minutes(int(d / time.Minute))
	}
	return t.seconds(int(d / time.Second))
}

// title returns the app's name and its state.
func (t *texts) title(w *Wait) string {
	switch {
	case w.Paused():
		return fmt.Sprintf(t.paused, w.App)
	case w.Failing():
		return fmt.Sprintf(t.failed, w.App)
	}
	return fmt.Sprintf(t.starting, w.App)
}

func (t *texts) status(w *Wait) string {
	switch {
	case w.Paused():
		return t.resting
	case w.Failing():
		return t.failing
	}
	return t.stages[w.Progress.Stage]
}

// why returns the reason of a failed start; empty if the start has not failed.
func (t *texts) why(w *Wait) string {
	said := t.reasons[w.Progress.Reason]
	switch {
	case !w.Failing() || said == "":
		return w.Progress.Failing
	case w.Progress.Failing == api.FailureKind(w.Progress.Reason): // there is nothing more to say
		return said
	}
	return said + " (" + w.Progress.Failing + ")"
}

// estimate tells how long earlier starts took, if that is known.
func (t *texts) estimate(w *Wait) string {
	switch {
	case w.Failing(), w.Usual() == 0:
		return ""
	case w.Late():
		return fmt.Sprintf(t.late, t.duration(w.Usual()))
	default:
		return fmt.Sprintf(t.usual, t.duration(w.Usual()))
	}
}

func (t *texts) hint(w *Wait) string {
	switch {
	case w.Paused():
		return t.resumes
	case w.Failing():
		return t.keepsOn
	}
	return t.opens
}

// languages chooses texts by Accept-Language. The first language is the default.
type languages struct {
	all     []*texts
	matcher language.Matcher
}

func newLanguages() languages {
	return languages{[]*texts{english(), korean()}, language.NewMatcher([]language.Tag{language.English, language.Korean})}
}

// maxAccept and maxTags bound what is read of an Accept-Language: parsing it takes more than proportional time, and nobody has more
// languages.
const (
	maxAccept = 256
	maxTags   = 16
)

func (l *languages) of(accept string) *texts {
	accept = firstTags(accept)
	tags, _, err := language.ParseAcceptLanguage(accept)
	if err != nil || len(tags) == 0 {
		return l.all[0]
	}
	_, i, _ := l.matcher.Match(tags...)
	return l.all[i]
}

// firstTags returns the beginning of an Accept-Language, without the tag in which a bound is reached.
func firstTags(accept string) string {
	short := accept[:min(len(accept), maxAccept)]
	tags := 0
	for i := range len(short) {
		if short[i] == ',' {
			if tags++; tags == maxTags {
				return short[:i]
			}
		}
	}
	if len(short) < len(accept) {
		return short[:max(0, strings.LastIndexByte(short, ','))]
	}
	return accept
}
