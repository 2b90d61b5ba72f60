// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// short is a timeout that tests wait for, and tick is how often timeouts are checked.
const (
	short = 100 * time.Millisecond
	tick  = 5 * time.Millisecond
)

// hasty returns Options with one short timeout. The others are far off.
func hasty(change func(*Limits)) Options {
	o := Options{Tick: tick, Limits: Limits{IdleTimeout: time.Hour, ReadHeaderTimeout: time.Hour, WriteTimeout: time.Hour}}
	change(&o.Limits)
	return o
}

func hastyIdle(l *Limits)  { l.IdleTimeout = short }
func hastyHead(l *Limits)  { l.ReadHeaderTimeout = short }
func hastyWrite(l *Limits) { l.WriteTimeout = short }
func hastyAll(l *Limits)   { l.IdleTimeout, l.ReadHeaderTimeout, l.WriteTimeout = short, short, short }

// answersAll is a pod's script that answers each request with okay.
func answersAll(c *net.TCPConn, b *bufio.Reader) {
	for {
		req, err := http.ReadRequest(b)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		_, _ = io.WriteString(c, okay)
	}
}

const (
	get   = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	okay  = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	empty = "HTTP/1.1 204 No Content\r\n\r\n"
)

// ticked sends text bit by bit until the connection ends.
func (c *client) ticked(text string) {
	every := time.NewTicker(tick)
	go func() {
		defer every.Stop()
		for i := 0; ; i++ {
			if _, err := c.Write([]byte{text[i%len(text)]}); err != nil {
				return
			}
			<-every.C
		}
	}()
}

func TestClientsThatSaySoLittle(t *testing.T) {
	for name, tc := range map[string]struct {
		limits func(*Limits)
		do     func(c *client)
	}{
		"nothing at all": {hastyHead, func(*client) {}},
		"nothing more": {hastyIdle, func(c *client) {
			c.send(get)
			c.reads(okay)
		}},
		"empty lines": {hastyHead, func(c *client) { c.send("\r\n") }},
		"half a head": {hastyHead, func(c *client) { c.send("GET / HTTP/1.1\r\nHost:") }},
		"half a second head": {hastyHead, func(c *client) {
			c.send("%sGET", get)
			c.reads(okay)
		}},
		"a head without end": {hastyHead, func(c *client) {
			c.send("GET / HTTP/1.1\r\n")
			c.ticked("A:b\r\n")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newRig(t, hasty(tc.limits), newPod(t, answersAll)).dial()
			tc.do(c)
			if got := c.ends(); got != "" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// A body may take its time, but not if the app has already answered.
func TestBodyAfterItsAnswer(t *testing.T) {
	r := newRig(t, hasty(hastyHead), newPod(t, func(c *net.TCPConn, b *bufio.Reader) {
		if _, err := http.ReadRequest(b); err == nil {
			_, _ = io.WriteString(c, okay)
			_, _ = io.Copy(io.Discard, b)
		}
	}))
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe")
	c.reads(okay)
	if got := c.ends(); got != "" {
		t.Errorf("got %q", got)
	}
}

// The body is not cut either as long as it keeps arriving.
func TestBodyThatComesAfterItsAnswer(t *testing.T) {
	const length = 5
	got := make(chan byte, length)
	o := still()
	o.Limits.ReadHeaderTimeout = time.Minute
	r := newRig(t, o, newPod(t, func(c *net.TCPConn, b *bufio.Reader) {
		req, err := http.ReadRequest(b)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, okay)
		for range length {
			one := make([]byte, 1)
			_, _ = io.ReadFull(req.Body, one)
			got <- one[0]
		}
	}))
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", length)
	c.reads(okay)
	served := r.only()
	eventually(t, "only the body is missing", func() bool { return served.watch.is().phase() == phaseHead })
	for range length {
		r.pass(40 * time.Second)
		c.send("x")
		<-got
		served.watch.look()
		if served.closed() {
			t.Fatal("it was cut")
		}
	}
}

// A client that waits for the app to answer, to send more or to read waits as long as the app takes.
func TestAppsMayTakeTheirTime(t *testing.T) {
	for name, tc := range map[string]struct {
		ask   string
		pause func(wait func(), c *net.TCPConn, b *bufio.Reader)
		want  string
	}{
		"before the answer": {get, func(wait func(), c *net.TCPConn, _ *bufio.Reader) {
			wait()
			_, _ = io.WriteString(c, okay)
		}, okay},
		"within the head": {get, func(wait func(), c *net.TCPConn, _ *bufio.Reader) {
			_, _ = io.WriteString(c, okay[:20])
			wait()
			_, _ = io.WriteString(c, okay[20:])
		}, okay},
		"within the body": {get, func(wait func(), c *net.TCPConn, _ *bufio.Reader) {
			_, _ = io.WriteString(c, okay[:len(okay)-1])
			wait()
			_, _ = io.WriteString(c, okay[len(okay)-1:])
		}, okay},
		"while a body comes": {
			"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
			func(wait func(), c *net.TCPConn, _ *bufio.Reader) {
				wait()
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
			}, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r *rig
			ready := make(chan struct{})
			addr := newPod(t, func(c *net.TCPConn, b *bufio.Reader) {
				<-ready
				if _, err := http.ReadRequest(b); err != nil {
					return
				}
				tc.pause(func() {
					since := r.now()
					eventually(t, "later", func() bool { return r.now() > since+3*short })
				}, c, b)
			})
			r = newRig(t, hasty(hastyAll), addr)
			close(ready)
			c := r.dial()
			c.send("%s", tc.ask)
			c.reads(tc.want)
		})
	}
}

// We notice that a client has reset its connection even if the app does not take more of the body.
func TestClientGoesWhileItUploads(t *testing.T) {
	done := make(chan struct{})
	r := newRig(t, Options{Tick: tick}, newPod(t, func(*net.TCPConn, *bufio.Reader) { <-done }))
	defer close(done)
	c := r.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", 1<<30)
	_ = c.SetWriteDeadline(time.Now().Add(short))
	for err := error(nil); err == nil; _, err = c.Write(make([]byte, 1<<20)) {
	}
	_ = c.SetLinger(0)
	_ = c.Close()
	eventually(t, "given up", func() bool { return r.route.Target().Pending() == 0 })
}

// An upgraded connection is not cut because it was slow once.
func TestTunnelIsNoAnswer(t *testing.T) {
	const pieces, size = 30, 9000 // each piece fits into a buffer, so that it is written and not moved in the kernel
	written := make(chan struct{})
	r := newRig(t, still(), newPod(t, func(c *net.TCPConn, b *bufio.Reader) {
		if _, err := http.ReadRequest(b); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		every := time.NewTicker(time.Millisecond)
		defer every.Stop()
		for range pieces {
			<-every.C
			if _, err := c.Write(make([]byte, size)); err != nil {
				return
			}
		}
		close(written)
		_, _ = io.Copy(io.Discard, b)
	}))
	r.sendBuffer.Store(16 << 10)
	c := r.dial()
	_ = c.SetReadBuffer(16 << 10)
	c.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	if _, err := http.ReadResponse(c.r, nil); err != nil {
		t.Fatal(err)
	}
	<-written
	if n, err := io.CopyN(io.Discard, c.r, pieces*size); err != nil {
		t.Fatal(n, err)
	}
	if got := r.only().watch.is().phase(); got != phaseTunnel {
		t.Errorf("it is in phase %d", got)
	}
}

// An empty line after a request does not begin another request.
func TestEmptyLineBehindARequest(t *testing.T) {
	r := newRig(t, still(), newPod(t, answersAll))
	c := r.dial()
	for _, blank := range []string{"\r\n", ""} {
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi%s", blank)
		c.reads(okay)
		eventually(t, "idle", func() bool { return r.only().watch.is().phase() == phaseIdle })
	}
	c.send("\r\n")
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	c.reads(okay)
	eventually(t, "idle", func() bool { return r.only().watch.is().phase() == phaseIdle })
	c.send("\r\n\r")
	eventually(t, "no longer", func() bool { return r.only().watch.is().phase() == phaseHead })
}

// The form of our own answer does not depend on what follows the request.
func TestAnswerBeforeAPipelinedHEAD(t *testing.T) {
	headCame := make(chan struct{})
	r := newRig(t, Options{}, newPod(t, func(_ *net.TCPConn, b *bufio.Reader) {
		req, err := http.ReadRequest(b)
		if err != nil {
			return
		}
		close(headCame)
		_, _ = io.Copy(io.Discard, req.Body)
	}))
	c := r.dial()
	body := strings.Repeat("x", maxSmallBody+1)
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", len(body))
	<-headCame
	c.send("%sHEAD / HTTP/1.1\r\nHost: h\r\n\r\n", body)
	if got := c.ends(); !strings.Contains(got, "502") || !strings.HasSuffix(got, "closed the connection before it answered.\n") {
		t.Errorf("got %q", got)
	}
}

// We notice that a waiting client goes away, and the app sees it too.
func TestClientGoesWhileItWaits(t *testing.T) {
	for name, leave := range map[string]func(*client){
		"closing": func(c *client) { _ = c.Close() },
		"reset":   func(c *client) { _, _ = c.SetLinger(0), c.Close() },
		"having sent another": func(c *client) {
			c.send(get)
			_ = c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked, told := make(chan struct{}), make(chan struct{})
			r := newRig(t, Options{Tick: tick}, newPod(t, func(_ *net.TCPConn, b *bufio.Reader) {
				_, _ = http.ReadRequest(b)
				close(asked)
				_, _ = io.Copy(io.Discard, b)
				close(told)
			}))
			c := r.dial()
			c.send(get)
			<-asked
			leave(c)
			select {
			case <-told:
			case <-time.After(within):
				t.Fatal("the app waits on")
			}
			eventually(t, "counted", func() bool { return r.answered.all.Load() == 1 && r.route.Target().Pending() == 0 })
		})
	}
}

// endless returns the script of a pod with an endless answer. count is how many bytes were taken.
func endless(count *atomic.Int64) func(*net.TCPConn, *bufio.Reader) {
	return func(c *net.TCPConn, b *bufio.Reader) {
		if _, err := http.ReadRequest(b); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		piece := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
		for {
			n, err := c.Write(piece)
			count.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
}

// A client that does not read its answer costs little memory, and is cut.
func TestClientThatDoesNotRead(t *testing.T) {
	const kernel = 40 << 20 // how much the kernel's buffers on the way may hold
	var sent atomic.Int64
	r := newRig(t, hasty(hastyWrite), newPod(t, endless(&sent)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := r.dial()
	c.send(get)
	conn := r.only()
	eventually(t, "writing", func() bool {
		return conn.watch.is().phase() == phaseWrite && conn.server.engine.now()-conn.watch.is().since() > 2*tick
	})
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("%d bytes are held for it", grown)
	}
	eventually(t, "cut", func() bool {
		return r.connections() == 0
	})
	if n := sent.Load(); n > kernel {
		t.Errorf("%d bytes were taken of the app", n)
	}
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the client's connection goes on")
	}
}

// The client of a refused request gets the reason, even if it keeps sending, and then the connection ends.
func TestRefusedClientReadsWhy(t *testing.T) {
	c := newRig(t, Options{Tick: tick}, newPod(t, answersAll)).dial()
	c.send("GET / HTTP/1.1\r\nHost: h\r\nA: b\n\r\n")
	c.send("%s", strings.Repeat("more", 100<<10))
	_ = c.CloseWrite()
	got := c.ends()
	if !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request\r\n") || !strings.Contains(got, "\r\nConnection: close\r\n") {
		t.Errorf("got %q", got)
	}
}

func TestHeadTooLarge(t *testing.T) {
	o := Options{Tick: tick, Limits: Limits{MaxHeaderBytes: 8 << 10}}
	for name, head := range map[string]string{
		"one line":   "GET /" + strings.Repeat("a", 20<<10),
		"one field":  "GET / HTTP/1.1\r\nA: " + strings.Repeat("a", 20<<10),
		"many lines": "GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 4<<10),
	} {
		t.Run(name, func(t *testing.T) {
			c := newRig(t, o, newPod(t, answersAll)).dial()
			c.send("%s", head)
			_ = c.CloseWrite()
			if got := c.ends(); !strings.HasPrefix(got, "HTTP/1.1 431 ") {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestDrain(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	r := newRig(t, Options{Tick: tick}, newPod(t, func(c *net.TCPConn, b *bufio.Reader) {
		for {
			req, err := http.ReadRequest(b)
			if err != nil {
				return
			}
			if req.URL.Path == "/slow" {
				close(asked)
				<-answer
			}
			_, _ = io.WriteString(c, empty)
		}
	}))
	idle, busy := r.dial(), r.dial()
	idle.send(get)
	idle.reads(empty)
	busy.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
	<-asked
	r.server.draining.Store(true)
	r.server.each((*watch).closeIdle)
	if got := idle.ends(); got != "" {
		t.Errorf("the idle one got %q", got)
	}
	close(answer)
	if got := busy.ends(); got != "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n" {
		t.Errorf("the busy one got %q", got)
	}
	late := r.dial()
	late.send(get)
	if got := late.ends(); !strings.Contains(got, "Connection: close\r\n") {
		t.Errorf("the late one got %q", got)
	}
}

// A client that takes a little of its answer now and then is not cut, however long it needs for a whole piece.
func TestSlowClientIsNotCut(t *testing.T) {
	var sent atomic.Int64
	o := hasty(func(l *Limits) { l.WriteTimeout = time.Second }) // long enough for a client that gets no CPU for a while
	r := newRig(t, o, newPod(t, endless(&sent)))
	r.sendBuffer.Store(32 << 10) // so that the client's reading has an effect at once
	c := r.dial()
	_ = c.SetReadBuffer(16 << 10)
	c.send(get)
	every := time.NewTicker(10 * time.Millisecond)
	defer every.Stop()
	b := make([]byte, 4<<10) // 400 KiB/s, in pieces of 256 KiB
	for began := time.Now(); time.Since(began) < 3*time.Second; <-every.C {
		if n, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("cut after %v: %d, %v", time.Since(began), n, err)
		}
	}
}
