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

// maxStreams is how many requests one HTTP/2 connection may have open. net/http's default of 250 is low for a gRPC client, whose
// calls all share one connection.
const maxStreams = 2000

// streamBuffer is how many bytes of a request's body net/http reads before anybody asks for them. Clients may send that many until
// they learn another number.
const streamBuffer = 64 << 10

// headerSlack is how far an HTTP/2 header may exceed the limit in net/http: ten fields' extra 32 bytes.
const headerSlack = 10 * 32

// http2 carries cleartext HTTP/2 requests with net/http. They go on to the pod as HTTP/2, because the client knew that the app speaks
// it.
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
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second, MaxReceiveBufferPerStream: answerBuffer,
		},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return &http2{
		options: o, transport: t, buffers: sync.Pool{New: func() any { return new([wire.LargeBuffer]byte) }},
		errors: log.New(logWriter{o.Log}, "", 0),
	}
}

// server returns a server for HTTP/2 connections. It calls handler for each request. The request's context is done when ctx is.
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
			MaxReadFrameSize: 16 << 10, // the usual size; net/http would announce more than a stream may take at first
		},
		// The app has to answer OPTIONS * itself.
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnContext:                  withConn,
		ErrorLog:                     h.errors,
	}
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// grpcTimeout returns the timeout that a gRPC call has in its header; 0 if it has none.
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

// addrOf returns the address that a request came from.
func addrOf(r *http.Request) netip.AddrPort {
	addr, _ := netip.ParseAddrPort(r.RemoteAddr) // it cannot fail: net/http has formatted it from an address
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// logWriter takes the lines that net/http logs about single connections. They are for debugging only, because any client can cause
// them.
type logWriter struct{ log logr.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.log.V(1).Info("Serving HTTP/2", "message", strings.TrimSpace(string(b)))
	return len(b), nil
}
