// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bytes"
	"net/http"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// see counts the request by its source.
func (c *conn) see() route.Seen {
	b := c.in.bytes()
	s := route.Sighting{Method: c.req.Method(b), Target: c.req.Target(b), Agent: c.req.Value(b, http1.UserAgent), Client: c.peer.Addr()}
	if c.engine.options.TrustedHops != 0 {
		for _, f := range c.req.Fields {
			if f.Name == http1.XForwardedFor && f.ValueEnd > f.ValueStart {
				s.Remote = lastEntry(b[f.ValueStart:f.ValueEnd])
			}
		}
	}
	return c.route.See(&s)
}

// lastEntry is that of a list with commas: the visitor as the proxy before us names it.
func lastEntry(list []byte) []byte {
	return bytes.TrimSpace(list[bytes.LastIndexByte(list, ',')+1:])
}

// HTTP2See counts a request of HTTP/2 by its source. The caller must call End once it is over.
func (e *Engine) HTTP2See(r *route.Route, in *http.Request) route.Seen {
	var method [16]byte
	var target, agent, remote [256]byte // longer ones need the heap
	s := route.Sighting{
		Method: append(method[:0], in.Method...), Target: append(target[:0], in.RequestURI...), Agent: append(agent[:0], in.UserAgent()...),
		Client: addrOf(in).Addr(),
	}
	if e.options.TrustedHops != 0 {
		for _, came := range in.Header["X-Forwarded-For"] {
			if came != "" {
				s.Remote = lastEntry(append(remote[:0], came...))
			}
		}
	}
	return r.See(&s)
}
