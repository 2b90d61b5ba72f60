// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A count that is one too high keeps an app awake for ever, and one that is one too low puts it to sleep while it is in use. So
// clients and pods behave at random, and in the end nothing may be counted.
//
// There are two cases. Once a pod has gone, its uses are no longer visible, so in one case the pods stay. Requests are held only
// while there is no pod, so in the other case the pods come and go.
func TestCounting(t *testing.T) {
	t.Run("pods stay", func(t *testing.T) { count(t, func(_ *node, _ int32, _ []string, _ *rand.Rand) {}) })
	t.Run("pods come and go", func(t *testing.T) {
		count(t, func(n *node, listen int32, addrs []string, random *rand.Rand) {
			n.set(unpublished(service(listen, api.ProtocolHTTP, addrs[:random.IntN(len(addrs)+1)]...)))
		})
	})
}

func count(t *testing.T, change func(*node, int32, []string, *rand.Rand)) {
	t.Helper()
	const clients, exchanges = 24, 40
	seed := uint64(time.Now().UnixNano())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the seed was %d", seed)
		}
	})
	pods := &unreliable{t: t, seed: seed}
	addrs := []string{pods.start(1), pods.start(2), closedPort(t)}
	n, listen := serving(t, api.ProtocolHTTP, addrs...)
	stop := make(chan struct{})
	var watching, all sync.WaitGroup
	watching.Go(func() { n.neverNegative(stop) })
	watching.Go(func() {
		random := rand.New(rand.NewPCG(seed, 0))
		for {
			change(n, listen, addrs, random)
			select {
			case <-time.After(time.Duration(random.IntN(20)) * time.Millisecond):
			case <-stop:
				return
			}
		}
	})
	for i := range clients {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(100+i)))
			for range exchanges {
				anyExchange(random, listen)
			}
		})
	}
	all.Wait()
	close(stop)
	watching.Wait()
	n.idle()
	// The route still works, so the counts are not 0 only because it is stuck.
	n.set(unpublished(service(listen, api.ProtocolHTTP, newWirePod(t, always(ok("fine"))).addr)))
	n.applied()
	c := connect(t, listen)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.want(200, "fine")
	n.idle()
}

// neverNegative watches the counts until stop is closed.
func (n *node) neverNegative(stop <-chan struct{}) {
	i := n.seen()
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for {
		for _, target := range i.Targets() {
			if pending, held := target.Pending(), target.Held(); pending < 0 || held < 0 || i.InUse() < 0 {
				n.t.Errorf("pending %d, held %d, in use %d", pending, held, i.InUse())
				return
			}
		}
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

// anyExchange is one client's connection with random behaviour.
func anyExchange(random *rand.Rand, listen int32) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond) // longer than everything that does not hang on purpose
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", listen))
	if err != nil {
		return
	}
	c := conn.(*net.TCPConn)
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	requests := []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
		post("Content-Length: 5\r\n", "hello"),
		post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
		post("Content-Length: 50000\r\n", strings.Repeat("much ", 10000)),
		expecting + "hello",
		upgrade + "hello",
		post("Transfer-Encoding: chunked\r\n", "x\r\n"),
		post("Content-Length: x\r\n", ""),
		"no HTTP at all\r\n\r\n",
	}
	var bytes string
	for range 1 + random.IntN(3) {
		bytes += requests[random.IntN(len(requests))]
	}
	if random.IntN(3) == 0 { // the client stops anywhere
		bytes = bytes[:random.IntN(len(bytes))]
	}
	go func() { _, _ = io.WriteString(c, bytes) }()
	switch random.IntN(5) {
	case 0:
		_ = c.SetLinger(0)
	case 1:
		_, _ = c.Read(make([]byte, 1+random.IntN(200)))
	case 2:
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	case 3:
		_ = c.SetReadDeadline(time.Now().Add(time.Duration(random.IntN(10)) * time.Millisecond))
		_, _ = io.Copy(io.Discard, c)
	default:
		_, _ = io.Copy(io.Discard, c)
	}
}

// unreliable starts pods that answer at random.
type unreliable struct {
	t    testing.TB
	seed uint64
}

func (u *unreliable) start(number uint64) string {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(u.seed, number))
	return newWirePod(u.t, func(c *wireConn) {
		for {
			mu.Lock()
			what, early := random.IntN(12), random.IntN(6) == 0
			mu.Unlock()
			m, err := readHead(c.r)
			if err != nil {
				return
			}
			if !early && readBody(c.r, m, false) != nil {
				return
			}
			if !anyAnswer(c, m, what) {
				return
			}
		}
	}).addr
}

// anyAnswer answers and reports whether the connection continues.
func anyAnswer(c *wireConn, m *message, what int) bool {
	switch what {
	case 0:
		return false
	case 1:
		_ = c.SetLinger(0)
		return false
	case 2:
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
		return false
	case 3:
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
		_ = c.SetLinger(0)
		return false
	case 4:
		c.send("nonsense\r\n\r\n")
		return false
	case 5:
		c.send("HTTP/1.1 200 OK\r\n\r\nuntil close")
		return false
	case 6, 7:
		if m.value("Upgrade") != "" {
			c.send(switched)
			_, _ = io.CopyN(c, c.r, 5)
			return false
		}
	case 8:
		c.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
	case 9:
		c.send(switched) // perhaps nobody asked for it
		return false
	}
	if strings.HasPrefix(m.start, "HEAD ") {
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
	} else {
		c.send(ok("hello"))
	}
	return true
}
