// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A request that must not be sent twice waits if it comes when its app may just have been put to sleep. It goes to the next pod, and
// not to the one that is terminating.
func TestEdgeOfSleep(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
	answers := func(name string) func(net.Conn) {
		return func(c net.Conn) {
			defer c.Close()
			if _, err := c.Read(make([]byte, 1024)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"+name)
			}
		}
	}
	for _, protocol := range []string{api.ProtocolHTTP, api.ProtocolTCP} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			n, listen := serving(t, protocol)
			set := func(pods ...string) {
				s := unpublished(service(listen, protocol, pods...))
				s.Routes.Cooldown = api.Duration(time.Second)
				n.set(s)
				n.applied()
			}
			ends, next := rawPod(t, answers("ends")), rawPod(t, answers("next"))
			set(ends)
			first := connect(t, listen)
			first.send(post)
			first.want(200, "ends")
			<-time.After(api.InactiveAfter(time.Second)) // nothing may happen in this time
			c := connect(t, listen)
			c.send(post)
			keda := n.keda()
			eventually(t, "the request is there", func() bool { return pending(t, keda) == 1 })
			set()
			set(next)
			c.want(200, "next")
		})
	}
}
