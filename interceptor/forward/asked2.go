// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"github.com/scale-to-zero/scale-to-zero/interceptor/answers"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// asked2 implements asked for an HTTP/2 request.
type asked2 struct {
	stream *stream
	// text holds the method, the target and the User-Agent, one after the other.
	text                 []byte
	methodEnd, targetEnd int
}

func newAsked2(s *stream) *asked2 {
	a := &asked2{stream: s}
	agent := s.in.UserAgent()
	a.text = make([]byte, 0, len(s.in.Method)+len(s.in.RequestURI)+len(agent))
	a.text = append(a.text, s.in.Method...)
	a.methodEnd = len(a.text)
	a.text = append(a.text, s.in.RequestURI...)
	a.targetEnd = len(a.text)
	a.text = append(a.text, agent...)
	return a
}

func (a *asked2) method() []byte { return a.text[:a.methodEnd] }

func (a *asked2) target() []byte { return a.text[a.methodEnd:a.targetEnd] }

func (a *asked2) agent() []byte { return a.text[a.targetEnd:] }

func (a *asked2) host() string { return a.stream.in.Host }

func (a *asked2) value(name string) string { return a.stream.in.Header.Get(name) }

func (a *asked2) named() []byte { return a.stream.way().NamedHTTP2(a.stream.in.Header) }

func (a *asked2) hasBody() bool { return a.stream.in.ContentLength != 0 }

func (a *asked2) hasUpgrade() bool { return false }

func (a *asked2) waits() bool { return len(a.stream.in.Header[answers.PollField]) > 0 }

func (a *asked2) stick(s *route.Sticky, v *route.Visit) {
	for _, field := range a.stream.in.Header["Cookie"] {
		readCookies(s, v, []byte(field))
	}
}

// size is 0: the stream has drawn what its header takes, and its connection what has arrived of its body.
func (a *asked2) size() int64 { return 0 }
