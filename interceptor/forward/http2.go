// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"log"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/wire"
)

// maxStreams is how many requests one connection of HTTP/2 may have open. net/http's 250 are few for a gRPC client, all
// of whose calls share one connection.
const maxStreams = 2000

// streamBuffer is how many bytes of a request's body net/http reads before anybody asks for them. It is what clients may send
// before they know another number.
const streamBuffer = 64 << 10

// headerSlack is how many bytes more than the limit net/http accepts of a header, by HTTP/2: what ten fields are counted with
// besides their names and values.
const headerSlack = 10 * 32

// http2 carries requests of HTTP/2 without TLS, by net/http. What came so goes on so, since that client knew that the
// app speaks it.
type http2 struct {
	options   Options
	transport *http.Transport
	buffers   sync.Pool
	errors    *log.Logger
}

func newHTTP2(o Options, dialer *net.Dialer) *http2 {
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, &dialError{err}
			}
			return conn, nil
		},
		DisableCompression:     true,
		IdleConnTimeout:        o.PodIdleTimeout,
		MaxResponseHeaderBytes: int64(o.Limits.answerHead() - headerSlack),
		Protocols:              new(http.Protocols),
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return &http2{
		options: o, transport: t, buffers: sync.Pool{New: func() any { return new([wire.LargeBuffer]byte) }},
		errors: log.New(logWriter{o.Log}, "", 0),
	}
}

// server returns a server for connections that speak HTTP/2. It calls handler for each request, whose context is done when ctx
// is.
func (h *http2) server(ctx context.Context, handler http.Handler) *http.Server {
	l := h.options.Limits
	s := &http.Server{
		Handler:           aborting{handler, h.options.Log},
		ReadHeaderTimeout: l.ReadHeaderTimeout,
		IdleTimeout:       l.IdleTimeout,
		MaxHeaderBytes:    max(1, l.MaxHeaderBytes-headerSlack),
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, WriteByteTimeout: l.WriteTimeout, MaxReceiveBufferPerStream: streamBuffer,
			MaxReadFrameSize: 16 << 10, // as all may send; net/http would announce more than a stream takes at first
		},
		// OPTIONS * is the app's to answer.
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ErrorLog:                     h.errors,
	}
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// grpcTimeout is how long a gRPC call may take by its own header, or 0.
func grpcTimeout(r *http.Request) time.Duration {
	value := r.Header.Get("Grpc-Timeout")
	units := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}
	if len(value) < 2 || len(value) > 9 { // eight digits and a unit
		return 0
	}
	n, err := strconv.ParseInt(value[:len(value)-1], 10, 64)
	unit := units[value[len(value)-1]]
	if err != nil || n < 0 || unit > 0 && n > int64(math.MaxInt64/unit) {
		return 0
	}
	return time.Duration(n) * unit
}

// addrOf is the address that a request came from.
func addrOf(r *http.Request) netip.AddrPort {
	addr, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http has made it of one
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// logWriter takes the lines that net/http writes about single connections. They are for debugging: anybody can cause
// them.
type logWriter struct{ log logr.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.log.V(1).Info("Serving HTTP/2", "message", strings.TrimSpace(string(b)))
	return len(b), nil
}
