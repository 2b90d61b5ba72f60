// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestChain(t *testing.T) {
	db, d := newTestServer(t)
	db.name = "db"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- db.speakTCP(t.Context(), l) }()
	api, a := newTestServer(t)
	api.name, api.next = "api", "tcp://"+l.Addr().String()
	web, w := newTestServer(t)
	web.next = a.URL + "/chain"
	if got := app(t, 0, "get", w.URL+"/chain")[0]; got.Status != http.StatusOK || got.Body != "web-1 api db\n" {
		t.Errorf("%+v", got)
	}
	web.next = d.URL + "/status/503"
	if got := app(t, 0, "get", w.URL+"/chain")[0]; got.Status != http.StatusBadGateway || !strings.Contains(got.Body, "503") {
		t.Errorf("%+v", got)
	}
	_ = l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	web.next = "tcp://" + l.Addr().String()
	if got := app(t, 0, "get", w.URL+"/chain")[0]; got.Status != http.StatusBadGateway {
		t.Errorf("%+v", got)
	}
}
