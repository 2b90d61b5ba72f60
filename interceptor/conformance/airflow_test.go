// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// A worker of Airflow 3 that cannot wait for the api-server's start gives up and tries again. Each try is held and wakes the
// api-server. The try that waits long enough is answered, and the api-server sees only that one: no task starts twice.
func TestTriesThatAreGivenUp(t *testing.T) {
	const tries = 3
	var started atomic.Int64
	apiServer := pod(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPatch || string(body) != `{"pid":7}` {
			t.Errorf("%s %q, %v", r.Method, body, err)
		}
		started.Add(1)
	})
	n, listen := serving(t, api.ProtocolAuto)
	worker := client()
	ask := func(ctx context.Context) (int, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPatch, url(listen, "/execution/task-instances/1/run"),
			strings.NewReader(`{"pid":7}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := worker.Do(request)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}
	for range tries {
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan error, 1)
		go func() {
			_, err := ask(ctx)
			given <- err
		}()
		n.holds(1)
		cancel()
		if err := <-given; err == nil {
			t.Fatal("answered while there was no pod")
		}
		n.holds(0)
	}
	answered := make(chan int, 1)
	go func() {
		status, err := ask(t.Context())
		if err != nil {
			t.Errorf("the last try: %v", err)
		}
		answered <- status
	}()
	n.holds(1)
	n.set(unpublished(service(listen, api.ProtocolAuto, apiServer)))
	select {
	case status := <-answered:
		if status != http.StatusOK || started.Load() != 1 {
			t.Errorf("status %d, and the api-server was asked %d times", status, started.Load())
		}
	case <-time.After(within):
		t.Fatal("the last try was not answered")
	}
}
