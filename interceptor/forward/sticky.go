// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// To keep a client at one pod, we set a cookie of our own with the pod's ID (route.Sticky):
//
//   - whenever the app sets its session cookie. Our cookie then has the same attributes, so that it is sent in the same places and
//     ends at the same time;
//   - otherwise, if the request names no present pod, and either has the session cookie or no session cookie is configured.
//     Our cookie then is valid for the browser session and the whole host.
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

// readCookies fills in the pod of the visit from a Cookie field. The first cookie that names a present pod counts: a browser sends
// the cookie with the longest path first.
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

// setCookie returns the value of the Set-Cookie field for a visit that pod has answered; empty if there is nothing to set. If the app
// has set its session cookie, issued is true and session holds the cookie's attributes.
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

// issues reports whether a Set-Cookie field sets the session cookie. It returns the attributes, each with a semicolon before it.
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
