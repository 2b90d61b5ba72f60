// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	firstPort, lastPort = 8080, 8099
	visitTimeout        = time.Minute
)

// A browser visits the app through a port of this machine.
type browser struct {
	port   int
	client *http.Client
}

func (b *browser) url() string { return fmt.Sprintf("http://127.0.0.1:%d/", b.port) }

// open forwards the first port to the app's Service that is free or is already forwarded there.
func (b *browser) open(ctx context.Context, n *narrator, c cluster) error {
	b.client = &http.Client{Transport: &http.Transport{}, Timeout: visitTimeout}
	target := appNamespace + "/" + webserver + ":8080"
	var errs []error
	for port := firstPort; port <= lastPort; port++ {
		args := []string{"forward", "--background", strconv.Itoa(port), target}
		_, err := c.run(ctx, args...)
		if err == nil {
			b.port = port
			n.command(append([]string{"go", "run", "-C", "test/cluster", "."}, args...)...)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("opening a port from %d to %d: %w", firstPort, lastPort, errors.Join(errs[0], errs[len(errs)-1]))
}

// close closes the connection: while it is open, the app may be in use.
func (b *browser) close() { b.client.CloseIdleConnections() }

// An answer is what a visitor gets.
type answer struct {
	status, line string
	took         time.Duration
}

// visit requests the app's page, and fails if it gets anything else.
func (b *browser) visit(ctx context.Context, n *narrator) (answer, error) {
	defer n.progress("waiting for the answer")()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url(), nil)
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("User-Agent", "scale-to-zero-demo") // an event names it
	began := time.Now()
	response, err := b.client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return answer{}, context.Cause(ctx)
		}
		return answer{}, &failure{"the app answers", "200 OK", err.Error()}
	}
	defer response.Body.Close()
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body) // so that the connection can be used again
	}
	a := answer{status: response.Status, line: strings.TrimSpace(line), took: time.Since(began)}
	if response.StatusCode != http.StatusOK || (err != nil && !errors.Is(err, io.EOF)) || !strings.HasPrefix(a.line, webserver+"-") {
		return a, &failure{"the app answers", "200 OK, and a line with the pod's name", fmt.Sprintf("%s, %q (%v)", a.status, a.line, err)}
	}
	return a, nil
}
