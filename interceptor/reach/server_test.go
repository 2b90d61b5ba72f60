// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/reach"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// listen returns the address of a server that calls serve for each connection.
func listen(t *testing.T, serve func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn.(*net.TCPConn))
		}
	}()
	return l.Addr().String()
}

// closed returns an address on which nothing listens.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// full returns the address of a socket that accepts nothing and whose queue is full, so that SYNs to it are dropped.
func full(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*syscall.SockaddrInet4).Port}).String()
	for range 10 { // until a connection is no longer accepted
		conn, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the queue does not fill")
	return ""
}

func waits(c *net.TCPConn) {
	_, _ = c.Read(make([]byte, 16))
	_, _ = c.Read(make([]byte, 16)) // reads the end
	_ = c.Close()
}

func answers(c *net.TCPConn) {
	_, _ = c.Read(make([]byte, 16))
	_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
	_ = c.Close()
}

func ends(c *net.TCPConn) {
	_, _ = c.Read(make([]byte, 16))
	_ = c.Close()
}

// resets behaves like a proxy that has peeked at something other than TLS: unread bytes make the kernel reset the connection.
func resets(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool {
			n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
			return n > 0 || err != syscall.EAGAIN
		})
	}
	_ = err
	_ = c.Close()
}

func TestPods(t *testing.T) {
	good, broken, nobody, dropped := listen(t, waits), listen(t, resets), closed(t), full(t)
	reached := &pb.Port{Result: pb.Result_RESULT_REACHED}
	failed := func(addr, why string) *pb.Port {
		return &pb.Port{Result: pb.Result_RESULT_FAILED, Address: addr, Error: why}
	}
	refused := &pb.Port{Result: pb.Result_RESULT_REFUSED, Address: nobody, Error: "connection refused"}
	for name, tc := range map[string]struct {
		pods     []string
		protocol string
		want     *pb.Port
	}{
		"no pod":                    {nil, api.ProtocolHTTP, &pb.Port{}},
		"a server that waits":       {[]string{good}, api.ProtocolHTTP, reached},
		"one that answers":          {[]string{listen(t, answers)}, api.ProtocolAuto, reached},
		"one that ends":             {[]string{listen(t, ends)}, api.ProtocolAuto, reached},
		"a mesh that resets":        {[]string{broken}, api.ProtocolHTTP, failed(broken, "connection reset by peer")},
		"that, if it may be HTTP":   {[]string{broken}, api.ProtocolAuto, failed(broken, "connection reset by peer")},
		"that, if it is not HTTP":   {[]string{broken}, api.ProtocolTCP, reached},
		"nobody listens":            {[]string{nobody}, api.ProtocolHTTP, refused},
		"packets are dropped":       {[]string{dropped}, api.ProtocolHTTP, failed(dropped, "i/o timeout")},
		"one of three is reached":   {[]string{dropped, nobody, good}, api.ProtocolHTTP, reached},
		"a drop says more":          {[]string{nobody, dropped}, api.ProtocolHTTP, failed(dropped, "i/o timeout")},
		"a refusal is not a reset":  {[]string{nobody, broken}, api.ProtocolHTTP, failed(broken, "connection reset by peer")},
		"nobody listens, not HTTP":  {[]string{nobody}, api.ProtocolTCP, refused},
		"one is reached, is no web": {[]string{nobody, good}, api.ProtocolTCP, reached},
	} {
		t.Run(name, func(t *testing.T) {
			service := func(namespace, name string) (route.Service, bool) {
				return route.Service{
					Routes:    api.Routes{Ports: []api.Port{{Name: "http", Protocol: tc.protocol}, {Name: "none"}}},
					Endpoints: map[string][]string{"http": tc.pods},
				}, namespace == "shop" && name == "web"
			}
			s := NewServer(Options{DialTimeout: 200 * time.Millisecond, ResetTimeout: 5 * time.Second, Service: service})
			if tc.want.GetResult() == pb.Result_RESULT_REACHED && name != "one that answers" && name != "one that ends" {
				s.options.ResetTimeout = 50 * time.Millisecond // these pods say nothing
			}
			got, err := s.Pods(t.Context(), &pb.PodsRequest{Namespace: "shop", Service: "web"})
			if err != nil {
				t.Fatal(err)
			}
			tc.want.Name, tc.want.Ready = "http", int32(len(tc.pods))
			want := &pb.PodsResponse{Ports: []*pb.Port{tc.want, {Name: "none"}}}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Anybody may call, so there are limits on calls and on the pods that one call tries.
func TestPodsIsBounded(t *testing.T) {
	service := route.Service{
		Routes: api.Routes{Ports: []api.Port{{Name: "http"}}}, Endpoints: map[string][]string{"http": make([]string, 100)},
	}
	entered, release := make(chan struct{}), make(chan struct{})
	s := NewServer(Options{Service: func(_, name string) (route.Service, bool) {
		if name == "slow" {
			entered <- struct{}{}
			<-release
		}
		return service, name == "web"
	}})
	call := func(ctx context.Context, name string) error {
		_, err := s.Pods(ctx, &pb.PodsRequest{Namespace: "shop", Service: name})
		return err
	}
	if err := call(t.Context(), "other"); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown Service: %v", err)
	}
	done := make(chan error, maxCalls)
	for range maxCalls {
		go func() { done <- call(t.Context(), "slow") }()
		<-entered
	}
	if err := call(t.Context(), "web"); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more call: %v", err)
	}
	close(release)
	for range maxCalls {
		if err := <-done; status.Code(err) != codes.NotFound {
			t.Error(err)
		}
	}
	if err := call(t.Context(), "web"); err != nil {
		t.Errorf("after they have ended: %v", err)
	}
}

func TestRoutes(t *testing.T) {
	s := NewServer(Options{Owned: func(namespace, name string) (route.Owned, bool) {
		owned := route.Owned{ServiceUID: "u", Ports: []api.Port{{Name: "http", Listen: 10000}, {Listen: 10001}}}
		return owned, namespace == "shop" && name == "web"
	}})
	got, err := s.Routes(t.Context(), &pb.RoutesRequest{Namespace: "shop", Service: "web"})
	want := &pb.RoutesResponse{ServiceUid: "u", Routes: []*pb.Route{{Port: "http", Listen: 10000}, {Listen: 10001}}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, r := range []*pb.RoutesRequest{{}, {Namespace: "other", Service: "web"}, {Namespace: "shop", Service: "other"}} {
		if _, err := s.Routes(t.Context(), r); status.Code(err) != codes.NotFound {
			t.Errorf("%v: %v", r, err)
		}
	}
}
