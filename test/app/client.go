// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"
)

// shown is how many bytes of a body an answer shows by default.
const shown = 1 << 10

type getOptions struct {
	method      string
	data        string
	bytes       int64
	show        int
	header      header
	count       int
	concurrency int
	timeout     time.Duration
	connect     string
	ca          string
	url         string
}

// header is a flag that may be repeated.
type header http.Header

func (h header) String() string { return fmt.Sprint(map[string][]string(h)) }

func (h header) Set(line string) error {
	key, value, ok := strings.Cut(line, ":")
	if key = strings.TrimSpace(key); !ok || key == "" {
		return errors.New("want 'Key: value'")
	}
	http.Header(h).Add(key, strings.TrimSpace(value))
	return nil
}

func parseGet(args []string, stderr io.Writer) (getOptions, error) {
	o := getOptions{header: header{}}
	f := newFlags("get", stderr)
	f.StringVar(&o.method, "X", "", "method; GET, or POST with -d")
	f.StringVar(&o.data, "d", "", "body")
	f.Int64Var(&o.bytes, "bytes", 0, "length of a body of pseudo-random bytes, always the same, in place of -d")
	f.IntVar(&o.show, "show", shown, "how many bytes of each body to print")
	f.Var(o.header, "H", "header `'Key: value'`; may be repeated")
	f.IntVar(&o.count, "n", 1, "how many requests")
	f.IntVar(&o.concurrency, "c", 1, "how many at a time")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "for each request")
	f.StringVar(&o.connect, "connect", "", "`host:port` to connect to instead of the URL's, which still determines Host and TLS server name")
	f.StringVar(&o.ca, "ca", "", "trust the certificates of this `PEM` text, and no others")
	if err := f.Parse(args); err != nil {
		return o, fmt.Errorf("parsing flags: %w", err)
	}
	if f.NArg() != 1 || o.count < 1 || o.concurrency < 1 {
		fmt.Fprintln(stderr, "app get: want one URL, -n and -c at least 1")
		return o, errors.New("parsing arguments: bad count")
	}
	o.url = f.Arg(0)
	if o.method == "" {
		o.method = http.MethodGet
		if o.data != "" || o.bytes > 0 {
			o.method = http.MethodPost
		}
	}
	return o, nil
}

// transport connects as the flags say.
func (o getOptions) transport() (*http.Transport, error) {
	t := &http.Transport{MaxIdleConnsPerHost: o.concurrency, ForceAttemptHTTP2: true}
	if o.connect != "" {
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, o.connect)
		}
	}
	if o.ca != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(o.ca)) {
			return nil, errors.New("reading -ca: no certificate in it")
		}
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return t, nil
}

// body returns the body of one request.
func (o getOptions) body() io.Reader {
	if o.bytes == 0 {
		return strings.NewReader(o.data)
	}
	return io.LimitReader(rand.NewChaCha8([32]byte{}), o.bytes)
}

// answer is the answer to one request, as get prints it.
type answer struct {
	Status      int     `json:"status,omitempty"`
	Body        string  `json:"body,omitempty"` // the body's first bytes, as many as -show says
	Bytes       int64   `json:"bytes"`
	SHA256      string  `json:"sha256,omitempty"` // of the whole body
	Held        string  `json:"held,omitempty"`   // the header Scale-To-Zero-Held
	Ms          float64 `json:"ms"`
	FirstByteMs float64 `json:"firstByteMs,omitempty"`
	Error       string  `json:"error,omitempty"`
}

// get prints an answer for each request, and fails if a request got none or only a part of one.
func get(ctx context.Context, o getOptions, stdout io.Writer) error {
	transport, err := o.transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		Timeout:       o.timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	work := make(chan struct{}, o.count)
	for range o.count {
		work <- struct{}{}
	}
	close(work)
	var (
		workers sync.WaitGroup
		mu      sync.Mutex // protects failed and stdout
		failed  int
	)
	for range min(o.concurrency, o.count) {
		workers.Go(func() {
			for range work {
				a := request(ctx, client, o)
				line, err := json.Marshal(a)
				mu.Lock()
				if a.Error != "" || err != nil {
					failed++
				}
				_, _ = fmt.Fprintf(stdout, "%s\n", line)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	if failed > 0 {
		return fmt.Errorf("requesting %s: %d of %d requests failed", o.url, failed, o.count)
	}
	return nil
}

func request(ctx context.Context, client *http.Client, o getOptions) answer {
	var a answer
	begin := time.Now()
	ms := func() float64 { return float64(time.Since(begin).Microseconds()) / 1000 }
	err := func() error {
		ctx := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { a.FirstByteMs = ms() }})
		r, err := http.NewRequestWithContext(ctx, o.method, o.url, o.body())
		if err != nil {
			return fmt.Errorf("making a request: %w", err)
		}
		if o.bytes > 0 {
			r.ContentLength = o.bytes
		}
		r.Header = http.Header(o.header).Clone()
		r.Host = r.Header.Get("Host")
		response, err := client.Do(r)
		if err != nil {
			return err // it has the method and the URL
		}
		defer func() { _ = response.Body.Close() }()
		a.Status, a.Held = response.StatusCode, response.Header.Get("Scale-To-Zero-Held")
		sum, head := sha256.New(), &strings.Builder{}
		a.Bytes, err = io.Copy(io.MultiWriter(sum, &limited{head, o.show}), response.Body)
		a.Body, a.SHA256 = head.String(), hex.EncodeToString(sum.Sum(nil))
		if err != nil {
			return fmt.Errorf("reading the body: %w", err)
		}
		return nil
	}()
	if a.Ms = ms(); err != nil {
		a.Error = err.Error()
	}
	return a
}

// limited writes up to its limit and drops the rest.
type limited struct {
	to   io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.to.Write(p[:n]); err != nil {
		return 0, fmt.Errorf("writing: %w", err)
	}
	return len(p), nil
}
