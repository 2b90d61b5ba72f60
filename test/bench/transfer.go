// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// transfers is how many large bodies are in flight at once.
const transfers = 8

// bodies moves large bodies through a proxy.
func bodies(direction string) func(context.Context, *lab, *server, time.Duration) (sample, error) {
	return func(ctx context.Context, l *lab, s *server, d time.Duration) (sample, error) {
		before, err := s.cpu()
		if err != nil {
			return nil, err
		}
		out, err := tool(ctx, spare(l.options.cores), l.program, "transfer", "-address", s.http, "-duration", d.String(), "-direction", direction)
		if err != nil {
			return nil, err
		}
		after, err := s.cpu()
		if err != nil {
			return nil, err
		}
		moved, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("parsing how much was moved: %w", err)
		}
		return sample{"bytes": float64(moved) / 1e6 / (after - before).Seconds()}, nil
	}
}

// transfer downloads or uploads bodies, one after the other on each of some connections, and prints their total bytes. It
// finishes each body: only bytes that have gone the whole way count.
func transfer(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("transfer", flag.ContinueOnError)
	address := flags.String("address", "", "of the proxy")
	duration := flags.Duration("duration", time.Second, "after which no more bodies begin")
	direction := flags.String("direction", "download", "or upload")
	if err := flags.Parse(args); err != nil {
		return err
	}
	move := download
	if *direction == "upload" {
		move = upload
	}
	moved := make([]int64, transfers)
	end := time.Now().Add(*duration)
	group, ctx := errgroup.WithContext(ctx)
	for i := range moved {
		group.Go(func() error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", *address)
			if err != nil {
				return fmt.Errorf("connecting: %w", err)
			}
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			// With the smallest buffer, so that bodies are read without a copy.
			in, buf := bufio.NewReaderSize(conn, 4096), make([]byte, chunk)
			for ; time.Now().Before(end); moved[i] += largeBody {
				if err := move(conn, in, buf); err != nil {
					return fmt.Errorf("moving a body: %w", err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var sum int64
	for _, n := range moved {
		sum += n
	}
	fmt.Println(sum)
	return nil
}

func download(conn net.Conn, in *bufio.Reader, buf []byte) error {
	if _, err := io.WriteString(conn, "GET /large HTTP/1.1\r\nHost: "+conn.RemoteAddr().String()+"\r\n\r\n"); err != nil {
		return err
	}
	return receiveBody(in, buf, largeBody)
}

func upload(conn net.Conn, in *bufio.Reader, buf []byte) error {
	header := fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", conn.RemoteAddr(), largeBody)
	if _, err := io.WriteString(conn, header); err != nil {
		return err
	}
	for sent := 0; sent < largeBody; sent += len(buf) {
		if _, err := conn.Write(buf); err != nil {
			return err
		}
	}
	return receiveBody(in, buf, len(smallBody()))
}

// receiveBody reads an answer. It must be a success with a body of this length.
func receiveBody(in *bufio.Reader, buf []byte, length int) error {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != int64(length) {
		return fmt.Errorf("the answer is %s with %d bytes", resp.Status, resp.ContentLength)
	}
	n := 0
	for {
		m, err := resp.Body.Read(buf)
		n += m
		if errors.Is(err, io.EOF) && n == length {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
