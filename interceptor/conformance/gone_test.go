// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/page"
)

// waiter waits for an app with some protocol. Once the app is gone, it returns an error if its answer does not give the reason why.
type waiter struct {
	protocol string
	wait     func(t *testing.T, listen int32, why string) error
}

func waiters() map[string]waiter {
	answer := func(request string) func(*testing.T, int32, string) error {
		return func(t *testing.T, listen int32, why string) error {
			t.Helper()
			c := connect(t, listen)
			c.send(request)
			if m := c.answer(); m.status() != 503 || !strings.Contains(m.body, why) || m.value("Retry-After") == "" {
				return fmt.Errorf("got %q %q", m.start, m.body)
			}
			return nil
		}
	}
	return map[string]waiter{
		"HTTP/1":    {api.ProtocolAuto, answer("GET / HTTP/1.1\r\nHost: h\r\n\r\n")},
		"POST":      {api.ProtocolHTTP, answer("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")},
		"WebSocket": {api.ProtocolAuto, answer(upgrade)},
		"browser":   {api.ProtocolAuto, answer("GET / HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n")},
		"HTTP/2":    {api.ProtocolAuto, waitInHTTP2},
		"gRPC":      {api.ProtocolAuto, waitInGRPC},
		"poll":      {api.ProtocolAuto, waitInPage},
		"TCP": {api.ProtocolTCP, func(t *testing.T, listen int32, _ string) error {
			t.Helper()
			if n, err := dial(t, listen).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				return fmt.Errorf("read %d, %w", n, err)
			}
			return nil
		}},
	}
}

func waitInHTTP2(_ *testing.T, listen int32, why string) error {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: within}).Get(url(listen, "/"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 503 || !strings.Contains(string(b), why) || resp.ProtoMajor != 2 {
		return fmt.Errorf("got %s %q", resp.Status, b)
	}
	return nil
}

func waitInGRPC(t *testing.T, listen int32, why string) error {
	t.Helper()
	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", listen), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	err = conn.Invoke(ctx, "/echo.Echo/Unary", &wrapperspb.StringValue{}, &wrapperspb.StringValue{})
	if s := status.Convert(err); s.Code() != codes.Unavailable || !strings.Contains(s.Message(), why) {
		return fmt.Errorf("got %w", err)
	}
	return nil
}

// waitInPage polls like a page that is already open.
func waitInPage(t *testing.T, listen int32, why string) error {
	t.Helper()
	c := connect(t, listen)
	for {
		wait := page.Wait{}
		c.send(asks(wait.State()))
		m := c.answer()
		var r page.Report
		if err := json.Unmarshal([]byte(m.body), &r); err != nil || m.status() != 200 {
			return fmt.Errorf("got %q %q: %w", m.start, m.body, err)
		}
		if r.Failing {
			if !strings.Contains(r.Why, why) || m.value("Scale-To-Zero") != "failing" {
				return fmt.Errorf("got %q %q", m.lines, m.body)
			}
			return nil
		}
	}
}

// Everybody who waits for an app gets an answer as soon as its workload or its Service is gone.
func TestAppGoneWhileHeld(t *testing.T) {
	for event, why := range map[string]string{
		"workload": "Deployment/web does not exist any more", "service": "the Service does not exist any more",
	} {
		for name, w := range waiters() {
			t.Run(event+", "+name, func(t *testing.T) {
				t.Parallel()
				n, s := waits(t, within)
				listen := s.Routes.Ports[0].Listen
				s.Routes.Ports[0].Protocol = w.protocol
				n.set(s)
				n.applied()
				got := make(chan error, 1)
				go func() { got <- w.wait(t, listen, why) }()
				n.holds(1)
				if event == "workload" {
					s.Routes.Retiring, s.Routes.Gone = true, why
					n.set(s)
				} else {
					n.services <- func(sink interceptor.Sink) { sink.RemoveService("shop", "web") }
				}
				select {
				case err := <-got:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(within):
					t.Error("it goes on waiting")
				}
			})
		}
	}
}
