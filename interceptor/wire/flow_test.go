// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
)

// phases records what a flow waited for.
type phases struct{ reads, writes int }

func (p *phases) Reading() { p.reads++ }
func (p *phases) Writing() { p.writes++ }

// flowRig is a flow between two connections: bytes that are written to from arrive at to.
type flowRig struct {
	Flow
	from, to *net.TCPConn
	phases
}

func newFlowRig(t *testing.T) *flowRig {
	t.Helper()
	e := NewBuffers()
	r := &flowRig{}
	r.Src, r.from = newSockPair(t, e, true)
	r.Dst, r.to = newSockPair(t, e, true)
	r.Waits = &r.phases
	return r
}

// noise returns n pseudo-random bytes.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// chunksOf puts b into chunks of these sizes, in turn.
func chunksOf(b []byte, sizes ...int) []byte {
	var out []byte
	for i := 0; len(b) > 0; i++ {
		n := min(len(b), sizes[i%len(sizes)])
		out = fmt.Appendf(out, "%x\r\n", n)
		out = append(append(out, b[:n]...), "\r\n"...)
		b = b[n:]
	}
	return append(out, "0\r\nX-Sum: a\r\n\r\n"...)
}

func TestFlowCarriesExactly(t *testing.T) {
	const large = 5<<20 + 12345
	small := noise(100)
	for name, tc := range map[string]struct {
		body  Body
		bytes []byte
		plain []byte // the result without the chunks' framing
	}{
		"nothing":           {Body{}, nil, nil},
		"small":             {Body{Left: 100}, small, nil},
		"large":             {Body{Left: large}, noise(large), nil},
		"until the end":     {Body{Left: UntilEnd}, noise(large), nil},
		"empty until then":  {Body{Left: UntilEnd}, nil, nil},
		"small chunks":      {chunkedBody(), chunksOf(noise(100<<10), 1, 2, 700, 16), noise(100 << 10)},
		"large chunks":      {chunkedBody(), chunksOf(noise(large), 1<<20, 3, 40<<10, 1), noise(large)},
		"one chunk":         {chunkedBody(), chunksOf(noise(large), large), noise(large)},
		"chunks and none":   {chunkedBody(), chunksOf(nil, 1), []byte{}},
		"some of it before": {Body{Left: large, Chunked: false}, noise(large), nil},
	} {
		for _, plain := range []bool{false, true} {
			if plain && tc.plain == nil {
				continue
			}
			t.Run(fmt.Sprint(name, plain), func(t *testing.T) {
				r := newFlowRig(t)
				r.Plain = plain
				want := tc.bytes
				if plain {
					want = tc.plain
				}
				const next = "GET /next HTTP/1.1\r\n"
				untilIt := tc.body.Left == UntilEnd
				go func() {
					_, _ = r.from.Write(tc.bytes)
					if untilIt {
						_ = r.from.CloseWrite()
						return
					}
					_, _ = io.WriteString(r.from, next)
				}()
				got := sha256.New()
				copied := make(chan int64)
				go func() {
					n, _ := io.Copy(got, r.to)
					copied <- n
				}()
				b := tc.body
				if err := r.Copy(&b); err != nil || !b.Ended() {
					t.Fatalf("got %v, ended %v", err, b.Ended())
				}
				_ = r.Dst.CloseWrite()
				if n, sum := <-copied, sha256.Sum256(want); n != int64(len(want)) || !bytes.Equal(got.Sum(nil), sum[:]) {
					t.Errorf("%d bytes came, want %d, or they are others", n, len(want))
				}
				if untilIt {
					return
				}
				// The bytes that follow are still there: read after the body, or not read at all.
				rest := make([]byte, 0, len(next))
				if r.Rest != nil {
					rest = append(rest, r.Rest.Bytes()...)
				}
				more := make([]byte, len(next)-len(rest))
				if _, err := io.ReadFull(r.Src, more); err != nil || string(rest)+string(more) != next {
					t.Errorf("behind it come %q and %q, %v", rest, more, err)
				}
			})
		}
	}
}

func TestFlowTellsWhatItWaitsFor(t *testing.T) {
	r := newFlowRig(t)
	go func() { _, _ = r.from.Write([]byte("abc")) }()
	if err := r.Copy(&Body{Left: 3}); err != nil {
		t.Fatal(err)
	}
	if r.reads == 0 || r.writes == 0 || r.reads < r.writes {
		t.Errorf("it waited %d times for the source and %d times for the destination", r.reads, r.writes)
	}
}

func TestFlowEndsTooEarly(t *testing.T) {
	for name, tc := range map[string]struct {
		body Body
		came []byte
	}{
		"nothing came":      {Body{Left: 3}, nil},
		"part of a length":  {Body{Left: 3}, []byte("ab")},
		"much of a length":  {Body{Left: 3 << 20}, make([]byte, 2<<20)},
		"no chunk":          {chunkedBody(), nil},
		"part of a size":    {chunkedBody(), []byte("3")},
		"part of a chunk":   {chunkedBody(), []byte("3\r\nab")},
		"no last chunk":     {chunkedBody(), []byte("3\r\nabc\r\n")},
		"no end":            {chunkedBody(), []byte("0\r\n")},
		"part of a large":   {chunkedBody(), append([]byte("300000\r\n"), make([]byte, 2<<20)...)},
		"chunks, no length": {Body{Chunked: true, Left: UntilEnd}, []byte("3\r\nab")}, // like the body of an answer
		"large, no length":  {Body{Chunked: true, Left: UntilEnd}, append([]byte("300000\r\n"), make([]byte, 2<<20)...)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFlowRig(t)
			go func() {
				_, _ = r.from.Write(tc.came)
				_ = r.from.CloseWrite()
			}()
			copied := make(chan int64)
			go func() {
				n, _ := io.Copy(io.Discard, r.to)
				copied <- n
			}()
			b := tc.body
			var read ReadError
			if err := r.Copy(&b); !errors.As(err, &read) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v", err)
			}
			_ = r.Dst.Close()
			if n := <-copied; n != int64(len(tc.came)) {
				t.Errorf("%d bytes came, want %d", n, len(tc.came))
			}
		})
	}
}

func TestFlowFails(t *testing.T) {
	for _, size := range []int{100, 4 << 20} {
		for name, tc := range map[string]struct {
			before func(r *flowRig)
			came   []byte
			body   Body
			read   bool
			is     error
		}{
			"destination gone": {
				before: func(r *flowRig) { _, _ = r.to.SetLinger(0), r.to.Close(); _ = r.Dst.AwaitGone(true) },
				came:   make([]byte, size), body: Body{Left: int64(size) + 1},
			},
			"destination closed by us": {
				before: func(r *flowRig) { _ = r.Dst.Close() },
				came:   make([]byte, size), body: Body{Left: int64(size) + 1}, is: net.ErrClosed,
			},
			"destination takes nothing": {
				before: func(r *flowRig) { _ = r.Dst.SetWriteDeadline(time.Unix(1, 0)) },
				came:   make([]byte, size), body: Body{Left: int64(size) + 1}, is: os.ErrDeadlineExceeded,
			},
			"source closed by us": {
				before: func(r *flowRig) { _ = r.Src.Close() }, body: Body{Left: int64(size)}, read: true, is: net.ErrClosed,
			},
			"source resets": {
				before: func(r *flowRig) { _, _ = r.from.SetLinger(0), r.from.Close() }, body: Body{Left: int64(size)}, read: true,
			},
			"source silent": {
				before: func(r *flowRig) { _ = r.Src.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) },
				body:   Body{Left: int64(size)}, read: true, is: os.ErrDeadlineExceeded,
			},
			"no chunks": {
				before: func(*flowRig) {}, came: []byte("1\r\nabc"), body: chunkedBody(), read: true, is: http1.ErrBadChunkEnd,
			},
		} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				r := newFlowRig(t)
				tc.before(r)
				go func() { _, _ = r.from.Write(tc.came) }()
				var read ReadError
				var write WriteError
				err := r.Copy(&tc.body)
				if errors.As(err, &read) != tc.read || errors.As(err, &write) == tc.read {
					t.Fatalf("got %v", err)
				}
				if tc.is != nil && !errors.Is(err, tc.is) {
					t.Errorf("got %v, want %v", err, tc.is)
				}
			})
		}
	}
}

// This uses both directions of one connection at once, like an upgraded connection.
func TestFlowsBothWays(t *testing.T) {
	const size = 3<<20 + 7
	e := NewBuffers()
	a, atA := newSockPair(t, e, true)
	b, atB := newSockPair(t, e, true)
	errs := make(chan error, 6)
	for _, way := range []struct {
		src, dst *Sock
		in, out  *net.TCPConn
		seed     byte
	}{{a, b, atA, atB, 1}, {b, a, atB, atA, 2}} {
		data := append([]byte{way.seed}, noise(size)...)
		go func() {
			_, err := way.in.Write(data)
			errs <- err
		}()
		go func() {
			f := Flow{Src: way.src, Dst: way.dst, Waits: NoWaits{}}
			errs <- f.Copy(&Body{Left: size + 1})
		}()
		go func() {
			got := make([]byte, size+1)
			_, err := io.ReadFull(way.out, got)
			if err == nil && !bytes.Equal(got, data) {
				err = errors.New("other bytes came")
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
