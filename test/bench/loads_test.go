// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// app starts the backend and returns its address.
func app(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- acceptApp(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func TestBodyLength(t *testing.T) {
	for name, tc := range map[string]struct {
		header string
		want   int
		err    bool
	}{
		"get":        {header: "GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
		"post":       {header: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1024\r\n\r\n", want: 1024},
		"small name": {header: "POST / HTTP/1.1\r\ncontent-length:7\r\n\r\n", want: 7},
		"no length":  {header: "POST / HTTP/1.1\r\nHost: x\r\n\r\n"},
		"no number":  {header: "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", err: true},
		"chunked":    {header: "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", err: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := bodyLength([]byte(tc.header))
			if tc.err != (err != nil) || got != tc.want {
				t.Errorf("got %d and %v, want %d", got, err, tc.want)
			}
		})
	}
}

func TestBackend(t *testing.T) {
	addr := app(t)
	if err := check(t.Context(), addr); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		parts []string // each is written on its own
		want  int      // length of the answer's body, or -1 without one
	}{
		"small":              {[]string{"GET / HTTP/1.1\r\n\r\n"}, 100},
		"in parts":           {[]string{"GET / HT", "TP/1.1\r\nHost: x\r\n\r", "\n"}, 100},
		"large":              {[]string{"GET /large HTTP/1.1\r\n\r\n"}, largeBody},
		"body":               {[]string{"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"}, 100},
		"body in parts":      {[]string{"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na", "b", "c"}, 100},
		"more than the body": {[]string{"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nabc"}, -1},
		"chunked":            {[]string{"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"}, -1},
		"endless header":     {[]string{"GET / HTTP/1.1\r\nA: " + strings.Repeat("a", maxHeader)}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for range 2 { // the connection stays open
				for _, part := range tc.parts {
					_, _ = io.WriteString(conn, part)
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if tc.want < 0 {
					if err == nil {
						t.Error("it was answered")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(tc.want) {
					t.Errorf("got %d bytes and %v, want %d", n, err, tc.want)
				}
			}
		})
	}
}

func TestTransfer(t *testing.T) {
	addr := app(t)
	for name, move := range map[string]func(net.Conn, *bufio.Reader, []byte) error{"download": download, "upload": upload} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			for range 2 {
				if err := move(conn, in, make([]byte, chunk)); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestReceiveBody(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		ok     bool
	}{
		"success":       {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", true},
		"refused":       {"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nabc", false},
		"another size":  {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", false},
		"cut":           {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", false},
		"no length":     {"HTTP/1.1 200 OK\r\n\r\nabc", false},
		"not even HTTP": {"hello\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			err := receiveBody(bufio.NewReader(strings.NewReader(tc.answer)), make([]byte, 2), 3)
			if tc.ok != (err == nil) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestIsWhole(t *testing.T) {
	answer := string(answer(100)) + smallBody()
	for name, tc := range map[string]struct {
		answer string
		whole  bool
		err    bool
	}{
		"whole":          {answer: answer, whole: true},
		"nothing yet":    {},
		"half a header":  {answer: answer[:30]},
		"half a body":    {answer: answer[:len(answer)-1]},
		"too much":       {answer: answer + "x", err: true},
		"an error":       {answer: "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", err: true},
		"endless header": {answer: strings.Repeat("x", maxHeader), err: true},
	} {
		t.Run(name, func(t *testing.T) {
			whole, err := isWhole([]byte(tc.answer))
			if whole != tc.whole || tc.err != (err != nil) {
				t.Errorf("got %v and %v", whole, err)
			}
		})
	}
}

func TestSender(t *testing.T) {
	t.Run("sends all", func(t *testing.T) {
		s, err := dialAll(app(t), 4)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		for _, interval := range []time.Duration{0, 100 * time.Microsecond} {
			begin := time.Now()
			took, err := s.run(200, interval)
			if err != nil {
				t.Fatal(err)
			}
			if least := 199 * interval; len(took) != 200 || time.Since(begin) < least {
				t.Errorf("got %d answers in %s, want 200 in at least %s", len(took), time.Since(begin), least)
			}
			if len(s.free) != 4 {
				t.Errorf("%d of 4 connections are free at the end", len(s.free))
			}
		}
	})
	t.Run("counts what is never answered", func(t *testing.T) {
		s := &sender{conns: map[int32]*exchange{}, free: []int32{1}}
		begin := time.Now()
		due := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second) }
		s.conns[1], s.conns[2] = &exchange{}, &exchange{due: due(1)}
		// Request 0 was answered, 1 is in flight, 2 and 3 were never sent.
		got := s.overdue(due, 2, 4, due(10))
		if want := []time.Duration{9 * time.Second, 8 * time.Second, 7 * time.Second}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("sees a connection that is closed", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		go func() {
			if conn, err := listener.Accept(); err == nil {
				_, _ = conn.Read(make([]byte, 1024))
				_ = conn.Close()
			}
		}()
		s, err := dialAll(listener.Addr().String(), 1)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		if _, err := s.run(1, 0); err == nil || !strings.Contains(err.Error(), "closed the connection") {
			t.Errorf("got %v", err)
		}
	})
}
