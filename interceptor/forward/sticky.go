// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// A client that is to stay at one pod is given a cookie of ours with the pod's ID (route.Sticky):
//
//   - whenever the app sets its session cookie. Ours then has the attributes of that one, so that it is sent wherever that
//     one is and ends when that one ends;
//   - otherwise when the request names no pod that is there, and either has the session cookie or no such cookie is
//     configured. Ours then is a cookie of the browser session for the whole host.
//
// The app gets all cookies as they were sent.

// eachCookie calls do for each cookie in a Cookie field until it returns false.
func eachCookie(field []byte, do func(name, value []byte) bool) {
	for len(field) > 0 {
		var pair []byte
		pair, field, _ = bytes.Cut(field, []byte(";"))
		name, value, ok := bytes.Cut(bytes.Trim(pair, " \t"), []byte("="))
		if ok && !do(name, value) {
			return
		}
	}
}

// readCookies fills in what a Cookie field says of the visit's pod. A browser sends the cookie with the longest path first: the
// first that names a pod counts.
func readCookies(s *route.Sticky, v *route.Visit, field []byte) {
	eachCookie(field, func(name, value []byte) bool {
		switch {
		case string(name) == s.Own:
			if id := route.ParsePodID(value); id != 0 && !s.Lists(v.Pin) {
				v.Pin = id
			}
		case s.Session != "" && v.Session == 0 && string(name) == s.Session:
			v.Session = route.HashSession(value)
		}
		return true
	})
}

// setCookie returns the value of the Set-Cookie field for a visit that pod has answered, or nothing if there is nothing to set.
// Session holds the attributes of the session cookie if the app has set it.
func setCookie(s *route.Sticky, v *route.Visit, pod *route.Endpoint, session []byte, issued, https bool) string {
	id := s.ID(pod)
	switch {
	case id == "":
		return ""
	case issued:
		return s.Own + "=" + id + string(session)
	case s.Lists(v.Pin), s.Session != "" && v.Session == 0:
		return ""
	case https:
		return s.Own + "=" + id + "; Path=/; HttpOnly; Secure; SameSite=None"
	default:
		return s.Own + "=" + id + "; Path=/; HttpOnly; SameSite=Lax"
	}
}

// issues reports whether a Set-Cookie field sets the session cookie, and returns its attributes, each behind a semicolon.
func issues(s *route.Sticky, field []byte) (attributes []byte, ok bool) {
	if s.Session == "" {
		return nil, false
	}
	end := bytes.IndexByte(field, ';')
	if end < 0 {
		end = len(field)
	}
	name, _, ok := bytes.Cut(field[:end], []byte("="))
	return field[end:], ok && string(bytes.Trim(name, " \t")) == s.Session
}

// stick reads the request's cookies.
func (c *conn) stick() {
	s := c.route.Sticky()
	if s == nil {
		return
	}
	b := c.in.bytes()
	for _, f := range c.req.Fields {
		if f.Name == http1.Other && http1.EqualFold(b[f.Start:f.NameEnd], "cookie") {
			readCookies(s, &c.visit, b[f.ValueStart:f.ValueEnd])
		}
	}
}

// stickyLine is the line of the answer in b that sets our cookie, if it is to be set.
func (c *conn) stickyLine(b []byte) string {
	s := c.route.Sticky()
	if s == nil || c.ignored {
		return ""
	}
	var session []byte
	issued := false
	for _, f := range c.answer.Fields {
		if f.Name == http1.Other && http1.EqualFold(b[f.Start:f.NameEnd], "set-cookie") {
			if attributes, ok := issues(s, b[f.ValueStart:f.ValueEnd]); ok {
				session, issued = attributes, true
			}
		}
	}
	https := c.engine.options.TrustedHops != 0 && http1.EqualFold(c.req.Value(c.in.bytes(), http1.XForwardedProto), "https")
	value := setCookie(s, &c.visit, c.pod, session, issued, https)
	if value == "" {
		return ""
	}
	return "Set-Cookie: " + value + "\r\n"
}

// stick reads the cookies of a request of HTTP/2.
func (h *http2Handler) stick(in *http.Request, v *route.Visit) {
	if s := h.sender.route.Sticky(); s != nil {
		for _, field := range in.Header["Cookie"] {
			readCookies(s, v, []byte(field))
		}
	}
}

// addSticky adds the field that sets our cookie to the answer of a pod, if it is to be set.
func (h *http2Handler) addSticky(answer http.Header, in *http.Request, v *route.Visit, pod *route.Endpoint) {
	s := h.sender.route.Sticky()
	if s == nil || h.sender.ignored || pod == nil {
		return
	}
	var session []byte
	issued := false
	for _, field := range answer["Set-Cookie"] {
		if attributes, ok := issues(s, []byte(field)); ok {
			session, issued = attributes, true
		}
	}
	https := h.options.TrustedHops != 0 && strings.EqualFold(in.Header.Get("X-Forwarded-Proto"), "https")
	if value := setCookie(s, v, pod, session, issued, https); value != "" {
		answer.Add("Set-Cookie", value)
	}
}

// answeredBy is the pod whose answer resp is.
func answeredBy(resp *http.Response) *route.Endpoint {
	if body, ok := resp.Body.(*countedBody); ok {
		return body.pod
	}
	return nil
}
