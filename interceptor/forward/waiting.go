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

// A browser that opens a page and waits for longer than the grace gets the waiting page in the place of the app's answer.
// While that page is open it polls: it asks for its own address with answers.PollField, and is answered when the start has come
// further, at the latest after pollFor. A poll counts and wakes like any request, so that the wake goes on until the page is
// closed. It never reaches the app, for which asking once more may mean something.

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

// follow answers a poll: at once if a pod is ready or the page does not know how far the start is, and else when that
// changes. The error is that of the wait alone.
func (c *call) follow(h holder) (answers.Answer, error) {
	r, v := c.server.route, &c.visit
	c.describe()
	knows, seconds, _ := strings.Cut(c.asked.value("scale-to-zero-wait"), ",")
	before, _ := strconv.ParseInt(seconds, 10, 16) // no number is 0, and a wrong one harms no other client
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
				if err == nil {
					pod.Done()
				}
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

// reach says whether pod can be reached, as it has to be before the page asks the app: not every app that is taken for ready
// listens. The connection is for that request.
func (s *Server) reach(ctx context.Context, pod *route.Endpoint) bool {
	defer pod.Done()
	// The client that goes away must not make the pod suspect.
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
