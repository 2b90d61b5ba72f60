// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package answers

import (
	"errors"
	"net/http"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// PollField marks a poll of the waiting page. Its value is the state that the page shows (page.Wait.State), a comma, and the number
// of seconds that it has waited.
const PollField = "Scale-To-Zero-Wait"

// Maker makes the answers of one interceptor.
type Maker struct {
	// Pages makes the waiting pages; nil if there are none.
	Pages *page.Pages
	// HideHeld omits how long requests were held.
	HideHeld bool
}

// For returns the answer to a visit that ended with err: the waiting page if the visit has a Limit, and otherwise the result of the
// function For. value returns the request's header fields.
func (m *Maker) For(r *route.Route, v *route.Visit, err error, value func(name string) string) Answer {
	a, ok := m.page(r, v, err, value)
	if !ok {
		a = For(err)
	}
	a.Fields = append(a.Fields, own(err)...)
	if held := m.HeldFor(v); held != "" {
		a.Fields = append(a.Fields, Field{HeldField, held})
	}
	return a
}

// HeldFor returns the value of HeldField for a visit. It is empty if the visit was not held, or if the answer must not say so.
func (m *Maker) HeldFor(v *route.Visit) string {
	if v.Held == 0 || m.HideHeld {
		return ""
	}
	return held(v.Held)
}

// page returns the waiting page for a visit with a Limit, if the page can show err.
func (m *Maker) page(r *route.Route, v *route.Visit, err error, value func(name string) string) (Answer, bool) {
	_, starting := errors.AsType[*route.StartingError](err)
	failed, fails := errors.AsType[*route.StartFailedError](err)
	if v.Limit == 0 || !starting && !fails {
		return Answer{}, false
	}
	w := WaitFor(r, r.Start(), v.Held)
	a := Answer{Status: http.StatusServiceUnavailable, RetryAfter: 2, Kind: "text/html; charset=utf-8"}
	if fails {
		w.Progress = failed.Progress // it may just have changed
		a.RetryAfter = 10
	}
	doc := m.Pages.Render(w, value("accept-language"))
	a.Text = string(doc.Body)
	a.Fields = []Field{
		stateOf(&w),
		{"Content-Language", doc.Lang},
		{"Content-Security-Policy", doc.Policy},
		{"Vary", "Accept, Accept-Language, Sec-Fetch-Dest, Sec-Fetch-Mode, " + PollField},
	}
	return a, true
}

// Report answers a poll of the waiting page with the state of the start.
func (m *Maker) Report(w page.Wait, language string) Answer {
	return Answer{
		Status: http.StatusOK, Kind: "application/json", Text: string(m.Pages.Report(w, language)),
		Fields: []Field{stateOf(&w)},
	}
}

// WaitFor returns what is known about a start, for a client that has already waited for waited.
func WaitFor(r *route.Route, start route.Start, waited time.Duration) page.Wait {
	return page.Wait{Namespace: r.Namespace, App: r.Service, Progress: start.Progress, Elapsed: max(start.Elapsed, waited)}
}

func stateOf(w *page.Wait) Field {
	switch {
	case w.Ready:
		return Field{StateField, "ready"}
	case w.Failing():
		return Field{StateField, "failing"}
	default:
		return Field{StateField, "starting"}
	}
}
