// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// asked1 implements asked for the HTTP/1.1 request that a connection is serving.
type asked1 struct{ *conn }

func (a asked1) method() []byte { return a.req.Method(a.in.Bytes()) }

func (a asked1) target() []byte { return a.req.Target(a.in.Bytes()) }

func (a asked1) agent() []byte { return a.req.Value(a.in.Bytes(), http1.UserAgent) }

func (a asked1) host() string { return string(a.req.Value(a.in.Bytes(), http1.Host)) }

func (a asked1) value(name string) string {
	b := a.in.Bytes()
	for _, f := range a.req.Fields {
		if http1.EqualFold(b[f.Start:f.NameEnd], name) {
			return string(b[f.ValueStart:f.ValueEnd])
		}
	}
	return ""
}

func (a asked1) named() []byte { return a.now.way().Named(&a.req, a.in.Bytes()) }

func (a asked1) hasBody() bool { return a.req.Length > 0 || a.req.Chunked }

func (a asked1) hasUpgrade() bool { return a.req.HasUpgrade }

func (a asked1) waits() bool { return a.req.Waits }

func (a asked1) stick(s *route.Sticky, v *route.Visit) {
	b := a.in.Bytes()
	for _, f := range a.req.Fields {
		if f.Name == http1.Other && http1.EqualFold(b[f.Start:f.NameEnd], "cookie") {
			readCookies(s, v, b[f.ValueStart:f.ValueEnd])
		}
	}
}

// size counts what the connection has not drawn already: the part of the body that the client may have sent.
func (a asked1) size() int64 {
	n := int64(cap(a.req.Fields)) * fieldSize
	switch {
	case !a.now.streams:
	case a.now.body.Chunked:
		n += unreadBody
	default:
		n += min(unreadBody, a.now.body.Left)
	}
	return n
}
