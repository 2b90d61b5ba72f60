// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// latencies is the output of sendAtRate.
type latencies struct {
	Requests int           `json:"requests"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	Max      time.Duration `json:"max"`
}

// atRate sends half of the requests that nginx can answer, whatever the proxy can do.
func atRate(ctx context.Context, l *lab, s *server, d time.Duration) (sample, error) {
	if l.maximum == 0 {
		if err := l.findMaximum(ctx); err != nil {
			return nil, err
		}
	}
	out, err := tool(ctx, nil, l.program, "rate", "-address", s.http, "-duration", d.String(),
		"-connections", strconv.Itoa(l.options.connections), "-rate", fmt.Sprint(l.maximum/2))
	if err != nil {
		return nil, err
	}
	var got latencies
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return nil, fmt.Errorf("parsing latencies: %w", err)
	}
	return sample{"p50": us(got.P50), "p99": us(got.P99), "max": us(got.Max)}, nil
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// findMaximum measures the most that nginx can answer. It does so once, so that the rate is the same in all rounds.
func (l *lab) findMaximum(ctx context.Context) error {
	s, err := l.server(ctx, nginx)
	if err != nil {
		return err
	}
	var rates []float64
	for range 4 {
		got, err := small(func(s *server) string { return s.http }, false)(ctx, l, s, min(l.options.duration, 2*time.Second))
		if err != nil {
			return err
		}
		rates = append(rates, got["rate"])
	}
	l.maximum = median(rates[1:]) // the first run only warms nginx up
	return nil
}

// sendAtRate sends each request when it is due, on a free connection or as soon as one is free, and measures from when it
// was due: time spent waiting for a slow proxy counts.
//
// It uses one thread and plain system calls: Go's timers have a resolution of a millisecond, more than most of the
// latencies, and its scheduler would take more time from the proxy than the requests do.
func sendAtRate(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("rate", flag.ContinueOnError)
	address := flags.String("address", "", "of the proxy")
	rate := flags.Float64("rate", 0, "requests a second")
	connections := flags.Int("connections", 64, "connections")
	duration := flags.Duration("duration", time.Second, "for which requests become due")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rate <= 0 {
		return errors.New("parsing arguments: -rate must be positive")
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	// By default the kernel lets timers be 50 µs late, to wake up less often.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("asking for exact timers: %w", err)
	}
	s, err := dialAll(*address, *connections)
	if err != nil {
		return err
	}
	defer s.close()
	// One request on each connection first, so that the proxy has accepted them all.
	if _, err := s.run(*connections, 0); err != nil {
		return err
	}
	took, err := s.run(max(1, int(*rate*duration.Seconds())), time.Duration(float64(time.Second) / *rate))
	if err != nil {
		return err
	}
	slices.Sort(took)
	return json.NewEncoder(os.Stdout).Encode(latencies{
		Requests: len(took), P50: percentile(took, 50), P99: percentile(took, 99), Max: took[len(took)-1],
	})
}

// sender has connections, each with at most one request in flight.
type sender struct {
	epoll   int
	request []byte
	conns   map[int32]*exchange // by file descriptor
	free    []int32             // the one that has been free longest comes first
	events  []unix.EpollEvent
}

// exchange is a connection's request, and what has come of its answer.
type exchange struct {
	due    time.Time
	answer []byte
}

func dialAll(address string, connections int) (*sender, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an epoll: %w", err)
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("parsing -address: %w", err)
	}
	s := &sender{
		epoll: epoll, conns: map[int32]*exchange{}, events: make([]unix.EpollEvent, connections),
		request: []byte("GET / HTTP/1.1\r\nHost: " + net.JoinHostPort(to.Addr().String(), strconv.Itoa(int(to.Port()))) + "\r\n\r\n"),
	}
	for range connections {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("making a socket: %w", err)
		}
		err = errors.Join(
			unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}),
			unix.SetNonblock(fd, true),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}),
		)
		if err != nil {
			return nil, fmt.Errorf("connecting to %s: %w", address, err)
		}
		s.conns[int32(fd)] = &exchange{answer: make([]byte, 0, maxHeader)}
		s.free = append(s.free, int32(fd))
	}
	return s, nil
}

func (s *sender) close() {
	for fd := range s.conns {
		_ = unix.Close(int(fd))
	}
	_ = unix.Close(s.epoll)
}

// run sends n requests, one each interval, and returns how long each took. It waits for answers for twice the time that
// sending should take, and a second. Later ones count as if they came at that moment.
func (s *sender) run(n int, interval time.Duration) ([]time.Duration, error) {
	took := make([]time.Duration, 0, n)
	begin := time.Now()
	due := func(i int) time.Time { return begin.Add(time.Duration(i) * interval) }
	end := due(2 * n).Add(time.Second)
	for sent := 0; len(took) < n; {
		now := time.Now()
		for ; sent < n && len(s.free) > 0 && !due(sent).After(now); sent++ {
			if err := s.send(due(sent)); err != nil {
				return nil, err
			}
		}
		next := end
		if sent < n && len(s.free) > 0 {
			next = due(sent)
		}
		ready, err := s.wait(time.Until(next))
		if err != nil {
			return nil, err
		}
		for _, event := range ready {
			at, err := s.receive(event.Fd)
			if err != nil {
				return nil, err
			}
			if !at.IsZero() {
				took = append(took, time.Since(at))
			}
		}
		if len(ready) == 0 && time.Now().After(end) {
			return append(took, s.overdue(due, sent, n, end)...), nil
		}
	}
	return took, nil
}

// overdue returns the time until end of the requests in flight and of those that were never sent.
func (s *sender) overdue(due func(int) time.Time, sent, n int, end time.Time) []time.Duration {
	var took []time.Duration
	for fd, c := range s.conns {
		if !slices.Contains(s.free, fd) {
			took = append(took, end.Sub(c.due))
		}
	}
	for ; sent < n; sent++ {
		took = append(took, end.Sub(due(sent)))
	}
	return took
}

func (s *sender) send(due time.Time) error {
	fd := s.free[0]
	s.free = append(s.free[:0], s.free[1:]...)
	s.conns[fd].due = due
	n, err := unix.Write(int(fd), s.request)
	if err != nil {
		return fmt.Errorf("sending a request: %w", err)
	}
	if n != len(s.request) {
		return errors.New("sending a request: a socket's buffer is full, though nothing is on its way in it")
	}
	return nil
}

// wait returns the connections that can be read, as soon as there is one or time is up. epoll_wait alone counts in
// milliseconds.
func (s *sender) wait(d time.Duration) ([]unix.EpollEvent, error) {
	timeout := unix.NsecToTimespec(int64(max(0, d)))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(s.epoll), uintptr(unsafe.Pointer(&s.events[0])),
		uintptr(len(s.events)), uintptr(unsafe.Pointer(&timeout)), 0, 0)
	switch errno {
	case 0:
		return s.events[:n], nil
	case unix.EINTR:
		return nil, nil
	default:
		return nil, fmt.Errorf("waiting: %w", errno)
	}
}

// receive reads what has come. If the answer is complete, it returns when the request was due.
func (s *sender) receive(fd int32) (time.Time, error) {
	c := s.conns[fd]
	n, err := unix.Read(int(fd), c.answer[len(c.answer):cap(c.answer)])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return time.Time{}, nil
	}
	if err == nil && n == 0 {
		err = errors.New("the proxy closed the connection")
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("reading an answer: %w", err)
	}
	c.answer = c.answer[:len(c.answer)+n]
	whole, err := isWhole(c.answer)
	if !whole || err != nil {
		return time.Time{}, err
	}
	c.answer = c.answer[:0]
	s.free = append(s.free, fd)
	return c.due, nil
}

// isWhole says that answer is the app's whole answer to a small request.
func isWhole(answer []byte) (bool, error) {
	header, body, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
	switch {
	case !ok && len(answer) < maxHeader:
		return false, nil
	case !ok, !bytes.HasPrefix(header, []byte("HTTP/1.1 200 ")), len(body) > smallLength:
		line, _, _ := bytes.Cut(answer, []byte("\r\n"))
		return false, fmt.Errorf("reading an answer: it is not the app's: %q", line)
	default:
		return len(body) == smallLength, nil
	}
}
