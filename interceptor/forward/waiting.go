// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// A browser that opens a page and waits for longer than the grace gets the waiting page in the place of the app's answer.
// While that page is open it polls: it asks for its own address with waitField, and is answered when the start has come
// further, at the latest after pollFor. A poll counts and wakes like any request, so that the wake goes on until the page is
// closed. It never reaches the app, for which asking once more may mean something.

// waitField tells a poll. Its value is what the page knows, as page.Wait.State, a comma, and for how many seconds it waits.
const waitField = "Scale-To-Zero-Wait"

// pollFor is shorter than the time that proxies before us give an answer.
const pollFor = 10 * time.Second

// patience is how long a request is held before its client is shown the page; 0 is until there is an answer of the app's.
func (o *Options) patience(r *route.Route, asks page.Request) time.Duration {
	mode := r.WaitingPage()
	front := page.Front{Namespace: r.Namespace, Service: r.Service, Reach: r.Reach()}
	switch {
	case o.Pages == nil, mode == api.PageNever, !page.IsNavigation(asks), page.IsSubrequest(asks):
		return 0
	case mode == api.PageAlways:
		return 1
	case !front.IsFromBrowser(asks):
		return 0
	default:
		return o.PageGrace
	}
}

// pageFor is the page for a visit with patience, if err is what it can show. Value returns the request's header fields.
func (o *Options) pageFor(r *route.Route, v *route.Visit, err error, value func(name string) string) (answer, bool) {
	var starting *route.StartingError
	var failed *route.StartFailedError
	if v.Patience == 0 || !errors.As(err, &starting) && !errors.As(err, &failed) {
		return answer{}, false
	}
	w := waitFor(r, r.Start(), v.Held)
	a := answer{status: http.StatusServiceUnavailable, retryAfter: 2, kind: "text/html; charset=utf-8"}
	if failed != nil {
		w.Progress = failed.Progress // it may just have changed
		a.retryAfter = 10
	}
	doc := o.Pages.Render(w, value("accept-language"))
	a.text = string(doc.Body)
	a.fields = []field{
		stateOf(&w),
		{"Content-Language", doc.Lang},
		{"Content-Security-Policy", doc.Policy},
		{"Vary", "Accept, Accept-Language, Sec-Fetch-Dest, Sec-Fetch-Mode, " + waitField},
	}
	return a, true
}

// waitFor is what is known of a start for somebody who waits for so long.
func waitFor(r *route.Route, start route.Start, waited time.Duration) page.Wait {
	return page.Wait{Namespace: r.Namespace, App: r.Service, Progress: start.Progress, Elapsed: max(start.Elapsed, waited)}
}

func stateOf(w *page.Wait) field {
	switch {
	case w.Ready:
		return field{stateField, "ready"}
	case w.Failing():
		return field{stateField, "failing"}
	default:
		return field{stateField, "starting"}
	}
}

// follow answers a poll: at once if a pod is ready or the page does not know how far the start is, and else when that
// changes. The error is that of ctx alone.
func (o *Options) follow(ctx context.Context, r *route.Route, v *route.Visit, value func(name string) string) (answer, error) {
	knows, seconds, _ := strings.Cut(value("scale-to-zero-wait"), ",")
	before, _ := strconv.ParseInt(seconds, 10, 16) // what is no number is 0, and one that is wrong harms nobody else
	v.Began = time.Now()
	wait := func(start route.Start) page.Wait {
		return waitFor(r, start, time.Duration(before)*time.Second+time.Since(v.Began))
	}
	now := wait(r.Start())
	v.Patience = pollFor
	if left := now.UntilLate(); left > 0 {
		v.Patience = min(pollFor, left)
	}
	v.News = func(start route.Start) bool {
		now := wait(start)
		return now.State() != knows
	}
	ready := false
	for !ready {
		pod, err := r.Pick(ctx, v)
		if ctx.Err() != nil {
			if err == nil {
				pod.Done()
			}
			return answer{}, context.Cause(ctx)
		}
		if err != nil {
			break // whatever it is, the page asks again
		}
		ready = o.reach(ctx, r, pod)
	}
	now = wait(r.Start())
	now.Ready = ready
	return answer{
		status: http.StatusOK, kind: "application/json", text: string(o.Pages.Report(now, value("accept-language"))),
		fields: []field{stateOf(&now)},
	}, nil
}

// reach says whether pod can be reached, as it has to be before the page asks the app: not every app that is taken for ready
// listens. The connection is for that request.
func (o *Options) reach(ctx context.Context, r *route.Route, pod *route.Endpoint) bool {
	defer pod.Done()
	// The client that goes away must not make the pod suspect.
	if r.ProxyProtocol() {
		up, err := takeFor(context.WithoutCancel(ctx), pod, ends{})
		if err == nil {
			_ = up.Close()
		}
		return err == nil
	}
	up, err := take(context.WithoutCancel(ctx), pod, o.PodIdleTimeout)
	if err != nil {
		return false
	}
	up.pool.put(up, 0)
	return true
}

// value returns the request's first field of that name, which is in lower case.
func (c *conn) value(name string) string {
	b := c.in.bytes()
	for _, f := range c.req.Fields {
		if http1.EqualFold(b[f.Start:f.NameEnd], name) {
			return string(b[f.ValueStart:f.ValueEnd])
		}
	}
	return ""
}

// polls says that the request is a poll.
func (c *conn) polls() bool {
	return c.req.Waits && c.engine.options.Pages != nil && bytes.Equal(c.req.Method(c.in.bytes()), []byte("GET"))
}

// poll answers a poll.
func (c *conn) poll() outcome {
	if err := c.begin(); err != nil {
		return c.fail(err)
	}
	c.describe(&c.visit)
	a, err := c.follow()
	if err != nil && c.group.base.Err() == nil {
		return c.fail(err)
	}
	if err != nil { // the page shows what it shows, and asks another interceptor
		a = c.answerTo(err)
		a.fields = append(a.fields, field{stateField, "starting"})
	}
	return c.conclude(a)
}

// follow waits like pick.
func (c *conn) follow() (answer, error) {
	ctx, cancel := context.WithCancelCause(c.group.base)
	defer cancel(nil)
	c.watchNow(func() { cancel(context.Canceled) })
	defer c.unwatch()
	return c.engine.options.follow(ctx, c.route, &c.visit, c.value)
}

// polls says that a request of HTTP/2 is a poll.
func polls(in *http.Request) bool {
	return len(in.Header[waitField]) > 0 && in.Method == http.MethodGet
}

// poll answers a poll by HTTP/2.
func (h *http2Handler) poll(w http.ResponseWriter, in *http.Request) {
	visit := visitOf(in)
	a, err := h.options.follow(in.Context(), h.sender.route, &visit, in.Header.Get)
	if err != nil {
		a = answerFor(err)
		a.fields = []field{{stateField, "starting"}}
	}
	a.write(w)
}
