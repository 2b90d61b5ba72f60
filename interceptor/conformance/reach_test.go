// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/reach"
)

// The injector learns about the pods in the route table. Over HTTP/1.1 and HTTP/2, requests that wait for pods that are ready but
// unreachable get an error that says so.
func TestOutOfReach(t *testing.T) {
	n := start(t, "a", nil, nil)
	listen := freePort(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close() // nothing listens there
	s := unpublished(service(listen, api.ProtocolAuto, addr))
	s.Routes.HoldTimeout = api.Duration(300 * time.Millisecond)
	n.set(s)
	n.synced()
	n.waitReady()

	conn, err := grpc.NewClient("passthrough:///"+n.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	asked := reach.NewReachClient(conn)
	answer, err := asked.Pods(t.Context(), &reach.PodsRequest{Namespace: "shop", Service: "web"})
	if err != nil || len(answer.GetPorts()) != 1 || answer.GetPorts()[0].GetResult() != reach.Result_RESULT_REFUSED ||
		answer.GetPorts()[0].GetAddress() != addr || answer.GetPorts()[0].GetError() != "connection refused" {
		t.Errorf("got %v, %v", answer, err)
	}
	if _, err := asked.Pods(t.Context(), &reach.PodsRequest{Namespace: "shop", Service: "other"}); status.Code(err) != codes.NotFound {
		t.Errorf("another Service: %v", err)
	}

	const want = "Deployment/web has ready pods, but they cannot be reached.\n"
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	for name, transport := range map[string]*http.Transport{"HTTP/1.1": {DisableKeepAlives: true}, "HTTP/2": h2} {
		resp, err := (&http.Client{Transport: transport, Timeout: within}).Get(url(listen, "/"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusGatewayTimeout || !strings.HasSuffix(string(body), want) {
			t.Errorf("%s: %d %q, %v", name, resp.StatusCode, body, err)
		}
	}
	if warnings := n.warnings(); len(warnings) != 0 {
		t.Errorf("warned at once: %v", warnings)
	}
}
