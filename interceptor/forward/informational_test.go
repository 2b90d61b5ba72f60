// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"sync"
	"testing"
	"time"
)

func TestInformationalIsOver(t *testing.T) {
	w := httptest.NewRecorder()
	early := informational{to: w}
	early.end()
	if err := early.pass(http.StatusEarlyHints, textproto.MIMEHeader{"Link": {"</a>"}}); err != nil {
		t.Error(err)
	}
	if w.Header().Set("A", "b"); len(w.Header()) != 1 || w.Code != http.StatusOK {
		t.Errorf("got %d, %v", w.Code, w.Header())
	}
}

// Clients that give up while the app sends informational answers end only their own requests. A fault here would end the process.
func TestInformationalToNobody(t *testing.T) {
	pods := listen(t)
	both := new(http.Protocols)
	both.SetUnencryptedHTTP2(true)
	app := &http.Server{Protocols: both, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>; rel=preload")
		for i := 0; i < 50 && r.Context().Err() == nil; i++ {
			w.WriteHeader(http.StatusEarlyHints)
		}
	})}
	serve := func(s *http.Server, serve func() error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = serve()
		}()
		t.Cleanup(func() {
			_ = s.Close()
			<-done
		})
	}
	serve(app, func() error { return app.Serve(pods) })
	r := newRig(t, Options{}, pods.Addr().String())
	server := r.http2.server(t.Context(), http.HandlerFunc(r.server.serveStream))
	listener := listen(t)
	serve(server, func() error { return server.Serve(listener) })
	transport := &http.Transport{Protocols: both}
	defer transport.CloseIdleConnections()
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for i := range 250 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(200+5*i)*time.Microsecond)
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listener.Addr().String()+"/", nil)
				if err != nil {
					t.Error(err)
				}
				if resp, err := transport.RoundTrip(req); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				cancel()
			}
		})
	}
	clients.Wait()
	eventually(t, "nothing is left", func() bool { return r.table.InUse() == 0 })
}
