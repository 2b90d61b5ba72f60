// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package ready

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// UserAgent is the User-Agent of our probes.
const UserAgent = "scale-to-zero-readiness/1.0"

// The kubelet's limits (k8s.io/kubernetes/pkg/probe/http, 1.37).
const (
	maxBody      = 10 << 10 // of an answer, in bytes
	maxRedirects = 10
)

// errStatus means that the app has answered that it is not ready.
var errStatus = errors.New("not ready")

// client runs probes by the kubelet's rules: each has its own connection, redirects within the pod are followed, other redirects
// count as success, and certificates are not verified.
type client struct {
	http http.Client
}

func newClient() *client {
	c := &client{}
	c.http = http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as the kubelet does it
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != via[0].URL.Hostname() || len(via) >= maxRedirects {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	return c
}

// run runs a probe of the pod at ip once. The error says why the probe fails.
func (c *client) run(ctx context.Context, ip string, p *api.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.Timeout))
	defer cancel()
	addr := net.JoinHostPort(ip, strconv.Itoa(int(p.Port)))
	switch {
	case p.HTTP != nil:
		return c.get(ctx, addr, p.HTTP)
	case p.GRPC != nil:
		return call(ctx, addr, p.GRPC)
	default:
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

func (c *client) get(ctx context.Context, addr string, p *api.HTTPProbe) error {
	u, err := url.Parse(p.Path)
	if err != nil {
		u = &url.URL{Path: p.Path}
	}
	u.Scheme, u.Host = "http", addr
	if p.HTTPS {
		u.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", UserAgent)
	req.Header.Set("Accept", "*/*")
	own := http.Header{}
	for _, h := range p.Headers {
		own.Add(h.Name, h.Value)
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		}
	}
	maps.Copy(req.Header, own)
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, maxBody); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("%w: status %d", errStatus, resp.StatusCode)
	}
	return nil
}

func call(ctx context.Context, addr string, p *api.GRPCProbe) error {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(UserAgent), grpc.WithNoProxy())
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: p.Service})
	if err != nil {
		return err
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("%w: %s", errStatus, resp.GetStatus())
	}
	return nil
}
