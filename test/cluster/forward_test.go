// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
)

func TestParseForwarding(t *testing.T) {
	for name, tc := range map[string]struct {
		local, target string
		want          forwarding
		fails         bool
	}{
		"number":       {local: "8080", target: "default/web:80", want: forwarding{8080, "default", "web", "80"}},
		"named port":   {local: "0", target: "default/web:http", want: forwarding{0, "default", "web", "http"}},
		"no port":      {local: "1", target: "default/web", fails: true},
		"empty port":   {local: "1", target: "default/web:", fails: true},
		"no namespace": {local: "1", target: "web:80", fails: true},
		"empty":        {local: "1", target: "/:", fails: true},
		"too many":     {local: "1", target: "a/b/c:80", fails: true},
		"local word":   {local: "http", target: "default/web:80", fails: true},
		"local high":   {local: "65536", target: "default/web:80", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseForwarding(tc.local, tc.target)
			if (err != nil) != tc.fails || !tc.fails && got != tc.want {
				t.Errorf("got %+v %v", got, err)
			}
		})
	}
}

func TestServiceAddress(t *testing.T) {
	parse := func(spec string) (s service) {
		if err := json.Unmarshal([]byte(spec), &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	web := `{"spec":{"clusterIP":"198.19.1.2","ports":[{"name":"http","port":80},{"port":8443}]}}`
	for name, tc := range map[string]struct{ service, port, want, fails string }{
		"by number":    {service: web, port: "8443", want: "198.19.1.2:8443"},
		"by name":      {service: web, port: "http", want: "198.19.1.2:80"},
		"unknown port": {service: web, port: "81", fails: "80 http, 8443"},
		"headless":     {service: `{"spec":{"clusterIP":"None","ports":[{"port":80}]}}`, port: "80", fails: "cluster IP"},
		"no address":   {service: `{"spec":{"type":"ExternalName"}}`, port: "80", fails: "cluster IP"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(tc.service).address(tc.port)
			if got != tc.want || (err != nil) != (tc.fails != "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("got %q %v", got, err)
			}
		})
	}
}

func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	a, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// A client that has closed its side for writing still gets the answer.
func TestJoinPassesHalfCloseOn(t *testing.T) {
	client, here := tcpPair(t)
	there, server := tcpPair(t)
	done := make(chan struct{})
	go func() { join(here, there); here.Close(); there.Close(); close(done) }()
	if _, err := client.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(server); err != nil || string(got) != "question" {
		t.Fatalf("server read %q %v", got, err)
	}
	if _, err := server.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
		t.Fatalf("client read %q %v", got, err)
	}
	<-done
}
