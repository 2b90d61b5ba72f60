// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"github.com/scale-to-zero/scale-to-zero/interceptor/busy"
)

// TestCPU tests what an API server's answers mean.
func TestCPU(t *testing.T) {
	const none, reading = "there are no metrics of pods", "reading metrics of pod web-1: "
	list := func(items string) string {
		return `{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[` + items + `]}`
	}
	pod := func(usage ...string) string {
		containers := make([]string, len(usage))
		for i, u := range usage {
			containers[i] = `{"name":"c","usage":{"cpu":"` + u + `","memory":"1Mi"}}`
		}
		return `{"metadata":{"name":"web-1","namespace":"shop"},"containers":[` + strings.Join(containers, ",") + `]}`
	}
	status := func(reason, message string) string {
		return `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"` + reason + `","message":"` + message + `"}`
	}
	for name, tc := range map[string]struct {
		selector string
		code     int
		body     string
		milli    int64
		pods     int
		err      string
		none     bool // the error is ErrNoMetrics
	}{
		"two pods":    {"app=web", 200, list(pod("100m", "1500000n") + "," + pod("2")), 2102, 2, "", false},
		"no pods":     {"app=web", 200, list(""), 0, 0, "", false},
		"no API":      {"app=web", 404, "404 page not found", 0, 0, none + ": the cluster has no API metrics.k8s.io/v1beta1", true},
		"may not":     {"app=web", 403, status("Forbidden", "it is forbidden"), 0, 0, none + " that may be read: it is forbidden", true},
		"API is down": {"app=web", 503, status("ServiceUnavailable", "not now"), 0, 0, "listing metrics of pods: not now", false},
		"no number":   {"app=web", 200, list(pod("much")), 0, 0, reading, false},
		"no usage":    {"app=web", 200, list(`{"metadata":{"name":"web-1"},"containers":[{"name":"c"}]}`), 0, 0, reading, false},
		"odd usage":   {"app=web", 200, list(`{"metadata":{"name":"web-1"},"containers":[{"usage":1}]}`), 0, 0, reading, false},
		"odd":         {"app=web", 200, list(`{"metadata":{"name":"web-1"},"containers":"c"}`), 0, 0, reading, false},
		"no selector": {"app in web", 200, list(pod("1")), 0, 0, `reading the label selector "app in web": `, false},
		"all pods":    {"", 200, list(pod("1")), 0, 0, `reading the label selector "": it selects all pods`, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods" ||
					r.URL.Query().Get("labelSelector") != tc.selector {
					t.Errorf("asked for %s %s", r.Method, r.URL)
				}
				if strings.HasPrefix(tc.body, "{") {
					w.Header().Set("Content-Type", "application/json")
				}
				w.WriteHeader(tc.code)
				_, _ = io.WriteString(w, tc.body)
			}))
			defer server.Close()
			c, err := New(&rest.Config{Host: server.URL}, Options{Log: logr.Discard()})
			if err != nil {
				t.Fatal(err)
			}
			milli, pods, err := c.CPU(t.Context(), "shop", tc.selector)
			if milli != tc.milli || pods != tc.pods || errors.Is(err, busy.ErrNoMetrics) != tc.none {
				t.Errorf("%dm of %d pods, %v", milli, pods, err)
			}
			if (err != nil) != (tc.err != "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
				t.Errorf("got %v\nwant %s", err, tc.err)
			}
		})
	}
}
