// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestVisit(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		status     int
		fails      bool
	}{
		{"the app", "airflow-webserver-x, up for 0s, request 1\n", 200, false},
		{"the app, without an end of line", "airflow-webserver-x", 200, false},
		{"somebody else", "It works!\n", 200, true},
		{"an error", "airflow-webserver-x\n", 503, true},
		{"nothing", "", 200, true},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tc.status)
			io.WriteString(w, tc.body)
		}))
		b := browser{port: server.Listener.Addr().(*net.TCPAddr).Port, client: server.Client()}
		a, err := b.visit(t.Context(), &narrator{out: io.Discard})
		var f *failure
		if (err != nil) != tc.fails || (tc.fails && !errors.As(err, &f)) || a.took <= 0 {
			t.Errorf("%s: %+v, %v", tc.name, a, err)
		}
		server.Close()
		if _, err := b.visit(t.Context(), &narrator{out: io.Discard}); !errors.As(err, &f) {
			t.Errorf("nobody there: %v", err)
		}
	}
}
