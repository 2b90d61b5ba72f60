// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// stackRetry is the pause before Services are looked for again that are to wake with another one and cannot.
const stackRetry = time.Minute

// parseWakeWith reads the annotation's value, of which empty is none.
func parseWakeWith(value string) (names []string, ok bool) {
	names, ok = parseList(value, api.IsServiceName)
	return names, ok && len(names) <= api.MaxWakeWith
}

// warnOfStack reports which of the Services that are to wake together with this one cannot: those that do not exist, and those
// that are not injected.
func (in cautions) warnOfStack(out *Outcome) Question {
	names := in.routes.WakeWith
	if len(names) == 0 {
		out.lasting(corev1.EventTypeWarning, ReasonStack, "")
		return Question{}
	}
	if in.o.Answers.Stack == nil {
		return Question{Kind: AskStack, Names: names}
	}
	var unknown, past []string
	for _, name := range names {
		switch injected, exists := in.o.Answers.Stack[name]; {
		case !exists:
			unknown = append(unknown, name)
		case !injected:
			past = append(past, name)
		}
	}
	var notes []string
	if len(unknown) > 0 {
		notes = append(notes, "there is no Service "+strings.Join(unknown, ", "))
	}
	if len(past) > 0 {
		notes = append(notes, fmt.Sprintf("label %s=true is missing, or has had no effect, on Service %s", OptInLabel, strings.Join(past, ", ")))
	}
	note := ""
	if len(notes) > 0 {
		note = fmt.Sprintf("Annotation %swake-with names Services that cannot wake with %s: %s", Prefix, in.o.Service.Name,
			strings.Join(notes, "; "))
		out.after(stackRetry)
	}
	out.lasting(corev1.EventTypeWarning, ReasonStack, note, in.o.Service)
	return Question{}
}
