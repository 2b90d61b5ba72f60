// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package busy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	busyapi "github.com/scale-to-zero/scale-to-zero/interceptor/api/busy"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// UserAgent is the User-Agent of our questions.
const UserAgent = "scale-to-zero-busy/1.0"

const (
	maxHeaders = 64 << 10 // of an answer, in bytes
	// maxPods is how many pods of a workload are asked. If there are more, chance decides which.
	maxPods = 10
	// maxAsked is how many pods are asked at a time, of all workloads.
	maxAsked = 64
)

// errCrowded means that a pod was not asked, because too many others were being asked.
var errCrowded = errors.New("too many pods are being asked at the moment")

// client asks pods.
type client struct {
	plain, announcing http.RoundTripper // the latter begins its connections with a PROXY protocol header
	asking            chan struct{}     // has an element for each pod that is being asked
	// evaluating has an element while an answer is evaluated. One at a time is enough, since it takes a moment. It bounds the memory for
	// parsed answers, and how much CPU hostile ones can take.
	evaluating chan struct{}

	mu         sync.Mutex // protects conditions
	conditions map[string]*busyapi.Condition
}

// maxConditions is how many compiled expressions are kept.
const maxConditions = 1000

func newClient() *client {
	return &client{
		plain: transport(false), announcing: transport(true),
		asking: make(chan struct{}, maxAsked), evaluating: make(chan struct{}, 1), conditions: map[string]*busyapi.Condition{},
	}
}

// transport returns a transport that keeps no connections: each pod is asked once a minute. The environment's proxies are not meant for
// pods.
func transport(announces bool) http.RoundTripper {
	var d net.Dialer
	return &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeaders,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := d.DialContext(ctx, network, addr)
			if err != nil || !announces {
				return conn, err
			}
			if _, err := conn.Write(wire.AppendProxyHeader(nil, netip.AddrPort{}, netip.AddrPort{})); err != nil {
				_ = conn.Close()
				return nil, err
			}
			return conn, nil
		},
	}
}

// condition returns the compiled expression.
func (c *client) condition(expression string) (*busyapi.Condition, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.conditions[expression]; known != nil {
		return known, nil
	}
	made, err := busyapi.Compile(expression)
	if err != nil {
		return nil, err
	}
	if len(c.conditions) >= maxConditions {
		clear(c.conditions)
	}
	c.conditions[expression] = made
	return made, nil
}

// askAll asks the ready pods of a workload. One that says that it is busy is enough. The error is that of a pod that did not answer as
// it should, if none says so.
func (c *client) askAll(ctx context.Context, check route.BusyCheck) result {
	condition, err := c.condition(check.Busy.Request.When)
	if err != nil {
		return result{err: fmt.Errorf("reading annotation scale-to-zero/busy-when: %w", err)}
	}
	addrs := check.Addrs
	if len(addrs) > maxPods {
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] }) //nolint:gosec // it is no secret
		addrs = addrs[:maxPods]
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		busy bool
		err  error
	}
	answers := make(chan answer, len(addrs))
	for _, addr := range addrs {
		go func() {
			busy, err := c.ask(ctx, check, condition, addr)
			answers <- answer{busy, err}
		}()
	}
	var failed error
	for range addrs {
		a := <-answers
		if a.busy {
			return result{busy: says(check)}
		}
		if a.err != nil && (failed == nil || errors.Is(failed, errCrowded)) {
			failed = a.err
		}
	}
	return result{err: failed}
}

// says says why a workload is busy.
func says(check route.BusyCheck) string {
	return fmt.Sprintf("%s says %s", asked(check.Busy.Request), shown(check.Busy.Request))
}

// asked is the request without its query, which may be secret.
func asked(r *api.BusyRequest) string {
	path := scaler.PublicPath(r.Path)
	if len(path) > 100 {
		path = path[:100] + "..."
	}
	return r.Method + " " + path
}

// shown is the expression as people see it.
func shown(r *api.BusyRequest) string {
	return scaler.Clean(strings.Join(strings.Fields(r.When), " "), 200)
}

// ask asks one pod.
func (c *client) ask(ctx context.Context, check route.BusyCheck, condition *busyapi.Condition, addr string) (bool, error) {
	began := time.Now()
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return false, errCrowded
	}
	late := time.Since(began) > askTimeout/2
	a, err := c.answer(ctx, check, condition.MaxBody(), addr)
	switch {
	case err != nil && late:
		return false, errCrowded // the pod had too little time
	case errors.Is(err, context.DeadlineExceeded):
		return false, fmt.Errorf("%s at %s: no complete answer within %s", asked(check.Busy.Request), addr, askTimeout)
	case err != nil:
		return false, fmt.Errorf("%s at %s: %w", asked(check.Busy.Request), addr, err)
	}
	select {
	case c.evaluating <- struct{}{}:
		defer func() { <-c.evaluating }()
	case <-ctx.Done():
		return false, errCrowded
	}
	holds, err := condition.Holds(ctx, a)
	if err != nil {
		return false, fmt.Errorf("%s at %s: %s, by which %q cannot be judged: %w", asked(check.Busy.Request), addr, statusOf(a),
			shown(check.Busy.Request), err)
	}
	return holds, nil
}

// statusOf describes the kind of an answer.
func statusOf(a *busyapi.Answer) string {
	text := fmt.Sprintf("the answer is %d %s", a.Status, http.StatusText(a.Status))
	if to := a.Headers["location"]; to != "" {
		text += ", which is not followed"
	}
	return text
}

// answer requests the pod's answer, with at most that many bytes of its body. Redirects are not followed.
func (c *client) answer(ctx context.Context, check route.BusyCheck, maxBody int, addr string) (*busyapi.Answer, error) {
	r := check.Busy.Request
	path, query, _ := strings.Cut(r.Path, "?")
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, err
	}
	req := (&http.Request{
		Method: r.Method, URL: &url.URL{Scheme: "http", Host: addr, Path: plain, RawPath: path, RawQuery: query},
		Host: check.Service + "." + check.Namespace, Header: http.Header{"User-Agent": {UserAgent}, "Accept": {"*/*"}},
	}).WithContext(ctx)
	use := c.plain
	if check.ProxyProtocol {
		use = c.announcing
	}
	resp, err := use.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &busyapi.Answer{Status: resp.StatusCode, Headers: map[string]string{}}
	for name, values := range resp.Header {
		a.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	if maxBody == 0 {
		return a, nil
	}
	if a.Body, err = io.ReadAll(io.LimitReader(resp.Body, int64(maxBody)+1)); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if len(a.Body) > maxBody {
		a.Body, a.TooLong = nil, true
	}
	return a, nil
}
