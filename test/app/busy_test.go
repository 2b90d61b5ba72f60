// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"testing"
	"time"
)

func TestExecutors(t *testing.T) {
	s, h := newTestServer(t)
	says := func(want string) {
		t.Helper()
		if got := app(t, 0, "get", h.URL+"/computer/api/json")[0]; got.Status != http.StatusOK || got.Body != want+"\n" {
			t.Errorf("%+v", got)
		}
	}
	says(`{"_class":"hudson.model.ComputerSet","busyExecutors":0,"totalExecutors":2}`)
	if err := s.work(t.Context(), func(key string) string { return map[string]string{"BUSY": "2"}[key] }); err != nil {
		t.Fatal(err)
	}
	says(`{"_class":"hudson.model.ComputerSet","busyExecutors":2,"totalExecutors":2}`)
	if got := app(t, 0, "get", "-X", "POST", h.URL+"/computer/busy/1")[0]; got.Status != http.StatusOK || got.Body != "1\n" {
		t.Errorf("%+v", got)
	}
	says(`{"_class":"hudson.model.ComputerSet","busyExecutors":1,"totalExecutors":2}`)
	if got := app(t, 0, "get", "-X", "POST", h.URL+"/computer/busy/-1")[0]; got.Status != http.StatusBadRequest {
		t.Errorf("%+v", got)
	}
	for key, value := range map[string]string{"BUSY": "much", "RUN_CPU": "long"} {
		if err := s.work(t.Context(), func(k string) string { return map[string]string{key: value}[k] }); err == nil {
			t.Errorf("%s=%s is no error", key, value)
		}
	}
}

// The process uses CPU while nobody asks it for anything.
func TestRunCPU(t *testing.T) {
	s, _ := newTestServer(t)
	before := used()
	if err := s.work(t.Context(), func(key string) string { return map[string]string{"RUN_CPU": "1m"}[key] }); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); used()-before < 50*time.Millisecond; <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it uses no CPU")
		}
	}
}
