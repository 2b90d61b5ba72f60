// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/answers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// A browser that opens a page and waits for longer than the grace gets the waiting page instead of the app's answer. The open page
// polls: it requests its own address with answers.PollField. It gets an answer when the start makes progress, at the latest after
// pollFor. A poll counts and wakes like any request, so the wake goes on until the page is closed. A poll never reaches the app, for
// which a repeated request may have a meaning.

// pollFor is shorter than the usual timeout of proxies before us.
const pollFor = 10 * time.Second

// patience returns how long a request is held before its client sees the waiting page; 0 means until the app answers.
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

// follow answers a poll. It answers at once if a pod is ready or if the page does not know the state of the start, and otherwise when
// that state changes. The error is only that of the wait.
func (c *call) follow(h holder) (answers.Answer, error) {
	r, v := c.server.route, &c.visit
	c.describe()
	knows, seconds, _ := strings.Cut(c.asked.value("scale-to-zero-wait"), ",")
	before, _ := strconv.ParseInt(seconds, 10, 16) // a missing number is 0, and a wrong one harms no other client
	v.Began = time.Now()
	wait := func(start route.Start) page.Wait {
		return answers.WaitFor(r, start, time.Duration(before)*time.Second+time.Since(v.Began))
	}
	now := wait(r.Start())
	v.Limit = pollFor
	if left := now.UntilLate(); left > 0 {
		v.Limit = min(pollFor, left)
	}
	v.News = func(start route.Start) bool {
		now := wait(start)
		return now.State() != knows
	}
	ready := false
	err := h.hold(func(ctx context.Context) error {
		for !ready {
			pod, err := r.Pick(ctx, v)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				return nil //nolint:nilerr // whatever it is, the page asks again
			}
			ready = c.server.reach(ctx, pod)
		}
		return nil
	})
	if err != nil {
		return answers.Answer{}, err
	}
	now = wait(r.Start())
	now.Ready = ready
	return c.server.engine.answers.Report(now, c.asked.value("accept-language")), nil
}

// reach reports whether pod can be reached. It has to be, before the page asks the app: not every app that counts as ready listens.
// The connection is left for the page's next request.
func (s *Server) reach(ctx context.Context, pod *route.Endpoint) bool {
	// A client that goes away must not make the pod suspect.
	if s.route.ProxyProtocol() {
		up, err := connectFor(context.WithoutCancel(ctx), pod, ends{})
		if err == nil {
			_ = up.Close()
		}
		return err == nil
	}
	up, err := connect(context.WithoutCancel(ctx), pod, s.engine.options.PodIdleTimeout)
	if err != nil {
		return false
	}
	up.pool.put(up, 0)
	return true
}
