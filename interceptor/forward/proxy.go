package forward

import (
	"cmp"
	"context"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// ProxyOptions configure a Proxy.
type ProxyOptions struct {
	// DialTimeout is how long one attempt to reach a pod may take. It is short, since pods may just have gone away and
	// their addresses swallow packets; the request then goes to another pod or is held. Default 1 s.
	DialTimeout time.Duration
	// MaxIdlePerPod bounds the connections kept open to one pod without a request. Default 64.
	MaxIdlePerPod int
	// IdleTimeout is how long such a connection is kept. Default 30 s.
	IdleTimeout time.Duration
	Log         logr.Logger
}

func (o *ProxyOptions) setDefaults() {
	o.DialTimeout = cmp.Or(o.DialTimeout, time.Second)
	o.MaxIdlePerPod = cmp.Or(o.MaxIdlePerPod, 64)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 30*time.Second)
}

// Proxy is the Engine made of net/http's client, server and reverse proxy.
type Proxy struct {
	// reuse keeps connections open. It is only for requests that can be sent again if the server closed the
	// connection just when the request went out.
	reuse *http.Transport
	// fresh opens a connection for each request. A server that closes idle connections early (gunicorn: after 2 s)
	// may do so while a POST is on its way, and a POST must not be sent twice: whether the first one was carried
	// out is unknown. On a connection just opened this cannot happen.
	fresh *http.Transport
	// h2c speaks HTTP/2 without TLS. There a server says which requests it has not begun when it goes away, so that
	// sharing one connection is safe for all.
	h2c *http.Transport

	buffers *bufferPool
	errors  *log.Logger
}

// NewProxy returns a Proxy.
func NewProxy(o ProxyOptions) *Proxy {
	o.setDefaults()
	dialer := &net.Dialer{Timeout: o.DialTimeout, KeepAlive: 30 * time.Second}
	transport := func() *http.Transport {
		t := &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dialer.DialContext(ctx, network, addr)
				if err != nil {
					return nil, &dialError{err}
				}
				return conn, nil
			},
			DisableCompression:    true,
			MaxIdleConns:          0, // bounded per pod
			MaxIdleConnsPerHost:   o.MaxIdlePerPod,
			IdleConnTimeout:       o.IdleTimeout,
			ExpectContinueTimeout: time.Second,
			Protocols:             new(http.Protocols),
			HTTP2:                 &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
		}
		t.Protocols.SetHTTP1(true)
		return t
	}
	p := &Proxy{
		reuse: transport(), fresh: transport(), h2c: transport(), buffers: newBufferPool(),
		errors: log.New(logWriter{o.Log}, "", 0),
	}
	p.fresh.DisableKeepAlives = true
	p.h2c.Protocols.SetHTTP1(false)
	p.h2c.Protocols.SetUnencryptedHTTP2(true)
	return p
}

// Handler implements Engine.
func (p *Proxy) Handler(pick Picker) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     &sender{proxy: p, pick: pick},
		FlushInterval: -1,
		BufferPool:    p.buffers,
		ErrorLog:      p.errors,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, err error) { Respond(w, err) },
	}
}

// CloseIdle implements Engine.
func (p *Proxy) CloseIdle() {
	p.reuse.CloseIdleConnections()
	p.h2c.CloseIdleConnections()
}

// rewrite undoes what ReverseProxy changes beyond hop-by-hop headers, and adds what a proxy adds.
func rewrite(r *httputil.ProxyRequest) {
	in, out := r.In, r.Out
	out.URL.Scheme = "http"
	out.Host = in.Host
	out.URL.RawQuery = in.URL.RawQuery // with semicolons and all
	// The path as it was sent: a URL parsed and written anew is not always the same bytes. A path that begins with
	// two slashes would be taken for an authority, and parses back to itself anyway.
	path, _, _ := strings.Cut(in.RequestURI, "?")
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") && path != out.URL.EscapedPath() {
		out.URL = &url.URL{Scheme: "http", Opaque: path, RawQuery: in.URL.RawQuery, ForceQuery: in.URL.ForceQuery}
	}
	out.Trailer = in.Trailer // the very map, which is filled in when the body has been read

	for _, name := range [...]string{"Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := in.Header[name]; ok {
			out.Header[name] = v
		}
	}
	if _, ok := in.Header["X-Forwarded-Host"]; !ok {
		out.Header["X-Forwarded-Host"] = []string{in.Host}
	}
	if _, ok := in.Header["X-Forwarded-Proto"]; !ok {
		out.Header["X-Forwarded-Proto"] = []string{"http"}
	}
	peer, _, err := net.SplitHostPort(in.RemoteAddr)
	if err != nil {
		peer = in.RemoteAddr
	}
	if came := in.Header["X-Forwarded-For"]; len(came) > 0 {
		peer = strings.Join(came, ", ") + ", " + peer
	}
	out.Header["X-Forwarded-For"] = []string{peer}
}

// bufferPool lends the buffers with which answers are copied.
type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([32 << 10]byte) }}}
}

func (p *bufferPool) Get() []byte  { return p.pool.Get().(*[32 << 10]byte)[:] }
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[32 << 10]byte)(b)) }

// logWriter takes the lines that net/http writes about single connections. They are for debugging: anybody can cause
// them.
type logWriter struct{ log logr.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.log.V(1).Info("serving http", "message", strings.TrimSpace(string(b)))
	return len(b), nil
}

// ErrorLog returns a logger for http.Server.ErrorLog that writes to log at debug level.
func ErrorLog(l logr.Logger) *log.Logger { return log.New(logWriter{l}, "", 0) }
