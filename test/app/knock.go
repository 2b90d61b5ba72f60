// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

type knockOptions struct {
	wait        time.Duration
	tls         bool
	concurrency int
	addresses   []string
}

func parseKnock(args []string, stderr io.Writer) (knockOptions, error) {
	var o knockOptions
	f := newFlags("knock", stderr)
	f.DurationVar(&o.wait, "wait", time.Second, "how long to say nothing before hanging up")
	f.BoolVar(&o.tls, "tls", false, "speak TLS, without a certificate, before saying nothing")
	f.IntVar(&o.concurrency, "c", 100, "how many connections at a time")
	if err := f.Parse(args); err != nil {
		return o, fmt.Errorf("parsing flags: %w", err)
	}
	for _, arg := range f.Args() {
		addresses, err := spread(arg)
		if err != nil {
			fmt.Fprintln(stderr, "app knock:", err)
			return o, err
		}
		o.addresses = append(o.addresses, addresses...)
	}
	if len(o.addresses) == 0 || o.concurrency < 1 {
		fmt.Fprintln(stderr, "app knock: want addresses, and -c at least 1")
		return o, errors.New("parsing arguments: nothing to knock at")
	}
	return o, nil
}

// spread returns the addresses of HOST:PORT or HOST:FIRST-LAST.
func spread(arg string) ([]string, error) {
	host, ports, err := net.SplitHostPort(arg)
	if err != nil {
		return nil, fmt.Errorf("parsing an address: %w", err)
	}
	from, to, several := strings.Cut(ports, "-")
	if !several {
		to = from
	}
	first, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("parsing a port: %w", err)
	}
	last, err := strconv.ParseUint(to, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("parsing a port: %w", err)
	}
	var out []string
	for port := first; port <= last; port++ {
		out = append(out, net.JoinHostPort(host, strconv.FormatUint(port, 10)))
	}
	return out, nil
}

// opened is a connection that was accepted, as knock prints it.
type opened struct {
	Address string `json:"address"`
	Read    string `json:"read,omitempty"`  // the first bytes that came without a word from us
	Error   string `json:"error,omitempty"` // why TLS failed, or why the connection ended before we hung up
}

// knock connects to each address, says nothing, and prints the connections that were accepted.
func knock(ctx context.Context, o knockOptions, stdout io.Writer) {
	work := make(chan string)
	go func() {
		defer close(work)
		for _, address := range o.addresses {
			work <- address
		}
	}()
	var (
		workers sync.WaitGroup
		mu      sync.Mutex // protects stdout
	)
	for range o.concurrency {
		workers.Go(func() {
			for address := range work {
				answer, accepted := o.knock(ctx, address)
				if !accepted {
					continue
				}
				if line, err := json.Marshal(answer); err == nil {
					mu.Lock()
					_, _ = fmt.Fprintf(stdout, "%s\n", line)
					mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
}

func (o knockOptions) knock(ctx context.Context, address string) (opened, bool) {
	a := opened{Address: address}
	d := net.Dialer{Timeout: 2 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return a, false
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(o.wait)); err != nil {
		return a, false
	}
	if o.tls {
		// It shows who is let in, not who lets in.
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	}
	head := make([]byte, shown)
	// With TLS 1.3, a client learns with the first bytes from the server that its certificate is missing.
	n, err := conn.Read(head)
	if a.Read = string(head[:n]); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		a.Error = err.Error()
	}
	return a, true
}
