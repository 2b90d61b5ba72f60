// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"

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
