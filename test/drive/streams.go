// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// open carries a stream for some time and then ends it in order. It returns what was wrong.
type open struct {
	name string
	run  func(ctx context.Context, host string, rng *rand.Rand, lasts time.Duration) error
}

func streams() []open {
	return []open{{"WebSocket", socket}, {"WebSocket", socket}, {"download", download}, {"download", download}, {"events", events}}
}

// stream keeps a stream open until ctx ends, one after the other. The last one is carried to its end too.
func (w *world) stream(ctx context.Context, a *app, s open, rng *rand.Rand) {
	for ctx.Err() == nil {
		lasts := time.Second + draw(rng, w.options.longest-time.Second)
		now := time.Now()
		one := result{at: now, opened: now, app: a.name, kind: s.name, edge: "is awake", id: fmt.Sprintf("for %s", lasts.Round(time.Millisecond))}
		streaming, cancel := context.WithTimeout(context.WithoutCancel(ctx), lasts+requestTimeout)
		one.err = s.run(streaming, a.lines.address, rng, lasts)
		cancel()
		one.took = time.Since(one.at)
		w.report.add(one)
	}
}

// socket sends messages, each of which must come back, and closes.
func socket(ctx context.Context, host string, rng *rand.Rand, lasts time.Duration) error {
	c, response, err := websocket.Dial(ctx, "ws://"+host+"/ws", nil)
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	if response.Body != nil {
		defer response.Body.Close()
	}
	defer c.CloseNow()
	end := time.Now().Add(lasts)
	for n := 0; time.Now().Before(end); n++ {
		message := make([]byte, rng.IntN(2000))
		for i := range message {
			message[i] = byte(rng.UintN(256))
		}
		if err := c.Write(ctx, websocket.MessageBinary, message); err != nil {
			return fmt.Errorf("sending message %d: %w", n, err)
		}
		_, got, err := c.Read(ctx)
		if err != nil {
			return fmt.Errorf("receiving message %d: %w", n, err)
		}
		if !bytes.Equal(got, message) {
			return fmt.Errorf("message %d came back as another one", n)
		}
		<-time.After(draw(rng, 200*time.Millisecond))
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		return fmt.Errorf("closing: %w", err)
	}
	return nil
}

// download takes 24 MiB, at a rate that makes them last, and checks each byte.
func download(ctx context.Context, host string, _ *rand.Rand, lasts time.Duration) error {
	const size, part = 24 << 20, 64 << 10
	response, err := get(ctx, fmt.Sprintf("http://%s/download?bytes=%d", host, size))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	b, begun := make([]byte, part), time.Now()
	for offset := 0; offset < size; offset += part {
		if _, err := io.ReadFull(response.Body, b); err != nil {
			return fmt.Errorf("after %d bytes: %w", offset, err)
		}
		if err := checkPattern(b, offset, part); err != nil {
			return err
		}
		<-time.After(time.Until(begun.Add(lasts * time.Duration(offset) / size)))
	}
	if n, err := response.Body.Read(b); err != io.EOF {
		return fmt.Errorf("after the end: %d bytes, %w", n, err)
	}
	return nil
}

// events reads ten events a second for the given time, and checks that none is missing.
func events(ctx context.Context, host string, _ *rand.Rand, lasts time.Duration) error {
	n := int(lasts / (100 * time.Millisecond))
	response, err := get(ctx, fmt.Sprintf("http://%s/sse?n=%d", host, n))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	next, lines := 0, bufio.NewScanner(response.Body)
	for lines.Scan() {
		var id int
		if _, err := fmt.Sscanf(lines.Text(), "id: %d", &id); err != nil {
			continue // another field, or the end of an event
		}
		if id != next {
			return fmt.Errorf("event %d came, %d was to come", id, next)
		}
		next++
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("after %d events: %w", next, err)
	}
	if next != n {
		return fmt.Errorf("%d events came of %d", next, n)
	}
	return nil
}

// get begins to read url, over a connection of its own.
func get(ctx context.Context, url string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("requesting: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("requesting: status %d", response.StatusCode)
	}
	return response, nil
}
