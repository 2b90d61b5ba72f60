// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// BenchmarkChain measures the whole way of a request: client, interceptor, pod and back, over loopback and kept connections. Direct
// is the same without the interceptor.
func BenchmarkChain(b *testing.B) {
	backend := httptest.NewServer(http.HandlerFunc(hello))
	defer backend.Close()
	addr := strings.TrimPrefix(backend.URL, "http://")
	port := freePort(b)
	n := start(b, "a", nil, nil)
	n.set(unpublished(service(port, api.ProtocolAuto, addr)))
	n.synced()
	n.waitReady()
	for name, url := range map[string]string{"direct": backend.URL, "intercepted": fmt.Sprintf("http://127.0.0.1:%d/", port)} {
		b.Run(name, func(b *testing.B) {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
			defer client.CloseIdleConnections()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					resp, err := client.Get(url)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			})
		})
	}
}
