// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

const (
	// largeBody is the length of the bodies of which the bytes are counted.
	largeBody = 16 << 20
	// chunk is how much of them is read or written at a time.
	chunk = 256 << 10
	// maxHeader is longer than any header that the proxies send.
	maxHeader = 8 << 10
	// smallLength is the length of the body of a small answer.
	smallLength = 100
)

func smallBody() string { return strings.Repeat("x", smallLength) }

// backend is the app behind all proxies. With only two cores, its CPU time is taken from the proxies, so it is minimal:
// it understands just the HTTP that they send, and costs no more than nginx answering by itself.
//
// GET / returns 100 bytes and GET /large returns largeBody; the body of a POST is read before the answer.
func backend(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("backend", flag.ContinueOnError)
	listen := flags.String("listen", "", "address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	return acceptApp(ctx, listener)
}

func acceptApp(ctx context.Context, listener net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	small := answer(smallLength)
	small = append(small, smallBody()...)
	large := make([]byte, chunk)
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting: %w", err)
		}
		go serveApp(conn, small, large)
	}
}

func answer(length int) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", length)
}

// serveApp answers the requests of one connection until it ends, or until a request that it does not understand; the load
// then sees an error.
func serveApp(conn net.Conn, small, large []byte) {
	defer conn.Close()
	header := make([]byte, maxHeader)
	var body []byte // made by the first large body
	have := 0
	for {
		n, err := conn.Read(header[have:])
		if err != nil {
			return
		}
		have += n
		end := bytes.Index(header[:have], []byte("\r\n\r\n"))
		if end < 0 {
			if have == len(header) {
				return
			}
			continue
		}
		end += 4
		length, err := bodyLength(header[:end])
		if err != nil {
			return
		}
		rest := length - (have - end)
		have = 0
		if rest > 0 && body == nil {
			body = make([]byte, chunk)
		}
		// The next request comes only after the answer, so more bytes than the body's are an error too.
		if rest < 0 || skip(conn, body, rest) != nil || respond(conn, header[:end], small, large) != nil {
			return
		}
	}
}

// respond writes the answer to the request with this header.
func respond(conn net.Conn, header, small, large []byte) error {
	if !bytes.HasPrefix(header, []byte("GET /large ")) {
		_, err := conn.Write(small)
		return err
	}
	if _, err := conn.Write(answer(largeBody)); err != nil {
		return err
	}
	for sent := 0; sent < largeBody; sent += len(large) {
		if _, err := conn.Write(large); err != nil {
			return err
		}
	}
	return nil
}

// bodyLength returns the length of the body after header.
func bodyLength(header []byte) (int, error) {
	if bytes.HasPrefix(header, []byte("GET ")) {
		return 0, nil // the frequent case, and a short text
	}
	for line := range bytes.Lines(header) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			if err != nil {
				return 0, fmt.Errorf("parsing the length of a body: %w", err)
			}
			return n, nil
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return 0, errors.New("parsing a header: bodies without a length are not understood")
		}
	}
	return 0, nil
}

// skip reads n bytes.
func skip(r io.Reader, buf []byte, n int) error {
	for n > 0 {
		m, err := r.Read(buf[:min(n, len(buf))])
		n -= m
		if err != nil && n > 0 {
			return err
		}
	}
	return nil
}
