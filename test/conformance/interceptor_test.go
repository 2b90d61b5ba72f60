// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

// proxy is a running interceptor.
type proxy struct {
	services chan route.Service
	health   string
	stop     context.CancelFunc
	done     chan error

	mu    sync.Mutex        // protects all below
	ports map[string]uint32 // of the interceptor, by the address that they lead to
}

// startProxy runs an interceptor without routes.
func startProxy() (*proxy, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &proxy{
		services: make(chan route.Service), health: fmt.Sprintf("127.0.0.1:%d", ports[0]), stop: stop,
		done: make(chan error, 1), ports: map[string]uint32{},
	}
	go func() {
		p.done <- interceptor.Run(ctx, interceptor.Options{
			Cluster: p, PodName: "a", ListenHost: "127.0.0.1", DrainTimeout: 10 * time.Second, UnpublishedLinger: time.Millisecond,
			GRPCAddress: fmt.Sprintf("127.0.0.1:%d", ports[1]), HealthAddress: p.health,
		})
	}()
	return p, nil
}

// Watch implements interceptor.Cluster.
func (p *proxy) Watch(ctx context.Context, sink interceptor.Sink) error {
	sink.Synced()
	for {
		select {
		case s := <-p.services:
			sink.SetService(s)
		case <-ctx.Done():
			return nil
		}
	}
}

// Scale implements interceptor.Cluster.
func (p *proxy) Scale(context.Context, string, api.Workload, int32) (bool, error) { return false, nil }

// WakeRequested implements interceptor.Cluster.
func (p *proxy) WakeRequested(scaler.Wake) {}

// Replicas implements interceptor.Cluster.
func (p *proxy) Replicas(context.Context, string, api.Workload) (int32, error) { return 1, nil }

// Warn implements interceptor.Cluster.
func (p *proxy) Warn(scaler.Warning) {}

// before returns the port of the interceptor that leads to a server, and listens.
func (p *proxy) before(server string) (uint32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if port, ok := p.ports[server]; ok {
		return port, nil
	}
	free, err := freePorts(1)
	if err != nil {
		return 0, err
	}
	port, name := free[0], fmt.Sprintf("web-%d", len(p.ports))
	s := route.Service{
		Namespace: "shop", Name: name, Pods: 1, Endpoints: map[string][]string{"http": {server}},
		Routes: api.Routes{
			Service: name, Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: name},
			Ports:    []api.Port{{Name: "http", Port: 80, Listen: int32(port), Protocol: api.ProtocolAuto}},
			Cooldown: api.Duration(time.Hour), HoldTimeout: api.Duration(time.Minute),
		},
	}
	select {
	case p.services <- s:
	case err := <-p.done:
		return 0, fmt.Errorf("running the interceptor: %w", err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = conn.Close()
			p.ports[server] = port
			return port, nil
		}
	}
	return 0, fmt.Errorf("the interceptor does not listen on port %d", port)
}

// close ends the interceptor and returns how many requests it has answered.
func (p *proxy) close() (requests int, err error) {
	requests, err = p.requests()
	p.stop()
	if ended := <-p.done; err == nil {
		err = ended
	}
	return requests, err
}

func (p *proxy) requests() (int, error) {
	resp, err := http.Get("http://" + p.health + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	all := 0
	for _, m := range regexp.MustCompile(`(?m)^scale_to_zero_requests_total\{.*\} (\d+)$`).FindAllSubmatch(b, -1) {
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			return 0, err
		}
		all += n
	}
	return all, err
}

// freePorts returns ports that nobody listens on.
func freePorts(n int) ([]uint32, error) {
	var ports []uint32
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, uint32(l.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}
