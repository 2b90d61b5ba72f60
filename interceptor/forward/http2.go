// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/scale-to-zero/scale-to-zero/interceptor/http1"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// maxStreams is how many requests one connection of HTTP/2 may have open. net/http's 250 are few for a gRPC client, all
// of whose calls share one connection.
const maxStreams = 2000

// streamBuffer is how many bytes of a request's body net/http reads before anybody asks for them. It is what clients may send
// before they have been told another number.
const streamBuffer = 64 << 10

// headerSlack is how many bytes net/http takes more of a header than it is told to, by HTTP/2: what ten fields are counted with
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
		options: o, transport: t, buffers: sync.Pool{New: func() any { return new([largeBuffer]byte) }},
		errors: log.New(logWriter{o.Log}, "", 0),
	}
}

// HTTP2Server returns a server for the connections that Group.Serve found to speak HTTP/2. It calls handler for each
// request.
func (e *Engine) HTTP2Server(ctx context.Context, handler http.Handler) *http.Server {
	l := e.options.Limits
	s := &http.Server{
		Handler:           aborting{handler, e.options.Log},
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
		ErrorLog:                     e.http2.errors,
	}
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

// HTTP2Handler returns the handler that forwards such requests to the pods of r. It answers errors itself.
//
// Ignored says that they are such as neither wake nor count.
func (e *Engine) HTTP2Handler(r *route.Route, ignored bool) http.Handler {
	return &http2Handler{e.http2, &sender{options: &e.http2.options, transport: e.http2.transport, route: r, ignored: ignored}}
}

// http2Handler forwards the requests of one route.
type http2Handler struct {
	*http2
	sender *sender
}

// ServeHTTP implements http.Handler.
func (h *http2Handler) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	if polls(in) && h.options.Pages != nil {
		h.poll(w, in)
		return
	}
	if in.Method == http.MethodConnect {
		respondHTTP2(w, in, http1.ConnectMethod)
		return
	}
	began := time.Now()
	early := informational{to: w}
	defer early.end()
	out := h.outgoing(in, &early)
	visit := visitOf(out)
	h.stick(in, &visit)
	resp, err := h.sender.send(out, &visit)
	early.end()
	held := h.options.heldFor(&visit)
	if err != nil {
		err = expired(in, began, err)
		if held != "" {
			w.Header().Set(heldField, held)
		}
		if a, ok := h.options.pageFor(h.sender.route, &visit, err, in.Header.Get); ok {
			a.write(w)
			return
		}
		respondHTTP2(w, in, err)
		return
	}
	defer resp.Body.Close()
	header := w.Header()
	maps.Copy(header, resp.Header)
	if held != "" {
		header.Set(heldField, held)
	}
	h.addSticky(header, in, &visit, answeredBy(resp))
	for name := range resp.Trailer {
		header.Add("Trailer", name)
	}
	w.WriteHeader(resp.StatusCode)
	if err := h.copyBody(w, resp); err != nil {
		breakOff(w, in, resp, began, err)
		return
	}
	for name, values := range resp.Trailer {
		if !slices.Contains(header["Trailer"], name) {
			name = http.TrailerPrefix + name
		}
		header[name] = values
	}
}

// expired returns err, or context.DeadlineExceeded if the app may have given up a gRPC call because its time is over, which
// an app says by no more than a reset.
func expired(in *http.Request, began time.Time, err error) error {
	if limit := grpcTimeout(in); limit > 0 && time.Since(began) >= limit {
		return context.DeadlineExceeded
	}
	return err
}

// breakOff ends an answer that the app has broken off. A gRPC call ends with the status that its client would have seen
// without us; net/http can reset a stream with no other code than INTERNAL_ERROR.
func breakOff(w http.ResponseWriter, in *http.Request, resp *http.Response, began time.Time, err error) {
	var read readError
	if !errors.As(err, &read) || in.Context().Err() != nil || !isGRPC(resp.Header) {
		panic(http.ErrAbortHandler) // how a handler resets its stream
	}
	err = expired(in, began, err)
	header := w.Header()
	header[http.TrailerPrefix+"Grpc-Status"] = []string{strconv.Itoa(int(grpcCode(err, answerFor(err))))}
	header[http.TrailerPrefix+"Grpc-Message"] = []string{"scale-to-zero: the app's pod broke off its answer."}
}

// isGRPC says that header is of a gRPC call, and not of gRPC-Web, which has its trailers in the body.
func isGRPC(header http.Header) bool {
	rest, ok := strings.CutPrefix(header.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// copyBody passes on each piece as it comes, and the header before them. Where there are none the header goes with the
// end: what fails a gRPC call at once must come in one frame.
func (h *http2Handler) copyBody(w http.ResponseWriter, resp *http.Response) error {
	flusher := http.NewResponseController(w)
	if resp.ContentLength != 0 {
		if err := flusher.Flush(); err != nil {
			return err
		}
	}
	buf := h.buffers.Get().(*[largeBuffer]byte)
	defer h.buffers.Put(buf)
	for {
		n, err := resp.Body.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err := flusher.Flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return readError{err}
		}
	}
}

// outgoing returns in as it goes to the pod, by the rule of appendRequest. Early gets the informational answers.
func (h *http2Handler) outgoing(in *http.Request, early *informational) *http.Request {
	out := in.WithContext(httptrace.WithClientTrace(in.Context(), &httptrace.ClientTrace{Got1xxResponse: early.pass}))
	out.RequestURI = ""
	if in.ContentLength == 0 {
		out.Body = nil
	}
	// The path as it was sent: a URL parsed and written anew is not always the same bytes. A path that begins with
	// two slashes would be taken for an authority, and parses back to itself anyway.
	out.URL = new(*in.URL)
	path, _, _ := strings.Cut(in.RequestURI, "?")
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") && path != in.URL.EscapedPath() {
		out.URL = &url.URL{Opaque: path, RawQuery: in.URL.RawQuery, ForceQuery: in.URL.ForceQuery}
	}
	out.URL.Scheme = "http"

	out.Header = maps.Clone(in.Header)
	if _, ok := in.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // or there would be one
	}
	for name, instead := range map[string]string{"X-Forwarded-Host": in.Host, "X-Forwarded-Proto": "http"} {
		if _, ok := in.Header[name]; !ok || h.options.TrustedHops == 0 {
			out.Header[name] = []string{instead}
		}
	}
	out.Header["X-Forwarded-For"] = []string{h.forwardedFor(in)}
	return out
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

// forwardedFor is the trusted hops and the address that the request came from.
func (h *http2) forwardedFor(in *http.Request) string {
	var came []byte
	if h.options.TrustedHops != 0 {
		for _, v := range in.Header["X-Forwarded-For"] {
			if v != "" {
				came = append(append(came, v...), ", "...)
			}
		}
	}
	if h.options.TrustedHops > 0 {
		came = lastEntries(came, h.options.TrustedHops)
	}
	return string(came) + addrOf(in).Addr().String()
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
	w.log.V(1).Info("serving HTTP/2", "message", strings.TrimSpace(string(b)))
	return len(b), nil
}
