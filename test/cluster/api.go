// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// An apiClient reads single objects from the API server, from inside the namespace and as administrator. Waiting needs no
// more; everything that writes uses kubectl.
type apiClient struct {
	http *http.Client
}

var errNotFound = errors.New("not found")

func (c *cluster) api() (*apiClient, error) {
	ca, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("cluster %s has no certificates: %w", c.name, err)
	}
	cert, err := tls.LoadX509KeyPair(c.pki("admin.crt"), c.pki("admin.key"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &apiClient{http: &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DialContext:       c.dial,
			TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
		},
	}}, nil
}

// get reads the object at path. With a nil object it only checks that one is there.
func (a *apiClient) get(ctx context.Context, path string, object any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, apiServer+path, nil)
	if err != nil {
		return err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusNotFound:
		return errNotFound
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("asking for %s: %s: %.300s", path, resp.Status, body)
	case object == nil:
		return nil
	}
	return json.Unmarshal(body, object)
}

// conditions is the part of an object's status that lists its conditions.
type conditions struct {
	Status struct {
		Conditions []struct{ Type, Status, Reason, Message string }
	}
}

func (c conditions) isTrue(kind string) bool {
	for _, condition := range c.Status.Conditions {
		if condition.Type == kind {
			return condition.Status == "True"
		}
	}
	return false
}

// has tells whether the object at path has a condition. It is false if there is no such object or the API server does not
// answer yet.
func (a *apiClient) has(ctx context.Context, path, condition string) bool {
	var object conditions
	return a.get(ctx, path, &object) == nil && object.isTrue(condition)
}

// waitHealthy polls a component's health endpoint. The component signs its certificate itself.
func (c *cluster) waitHealthy(ctx context.Context, name, url string) error {
	return c.waitHealthyIn(ctx, c.namespace(), name, url)
}

func (c *cluster) waitHealthyIn(ctx context.Context, namespace namespace, name, url string) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext:     namespace.dial,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // on loopback of our own namespace
	}}
	defer client.CloseIdleConnections()
	return poll(ctx, time.Minute, name+" to be healthy; see "+c.log(name), func() (bool, error) {
		if err := c.require(name); err != nil {
			return false, err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return false, ctx.Err()
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	})
}

// apply sends manifests to the API server with kubectl, as a user would.
func (c *cluster) apply(ctx context.Context, manifests []byte) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, c.hyperkube(), "apply", "--server-side", "--force-conflicts", "--kubeconfig", c.kubeconfig(), "-f", "-")
	cmd.Args[0] = "kubectl"
	cmd.Env = replaceEnv(os.Environ(), c.environment())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(manifests), &out, &out
	if err := c.namespace().do(cmd.Start); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("applying manifests: %w: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}
