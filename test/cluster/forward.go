// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A forwarding connects a port on this machine's loopback to a port of a Service inside the namespace.
type forwarding struct {
	localPort int
	namespace string
	service   string
	port      string // a number, or the name of the Service's port
}

func parseForwarding(local, target string) (forwarding, error) {
	port, err := strconv.ParseUint(local, 10, 16)
	if err != nil {
		return forwarding{}, fmt.Errorf("%q is not a port: use a number up to 65535, or 0 for any free port", local)
	}
	service, servicePort, hasPort := strings.Cut(target, ":")
	namespace, service, hasNamespace := strings.Cut(service, "/")
	if !hasPort || !hasNamespace || namespace == "" || service == "" || servicePort == "" || strings.ContainsAny(service+servicePort, "/:") {
		return forwarding{}, fmt.Errorf("%q is not a target: use NAMESPACE/SERVICE:PORT", target)
	}
	return forwarding{localPort: int(port), namespace: namespace, service: service, port: servicePort}, nil
}

func (f forwarding) target() string { return f.namespace + "/" + f.service + ":" + f.port }

// A service is the part of a Service that says how to reach it.
type service struct {
	Spec struct {
		ClusterIP string
		Ports     []struct {
			Name string
			Port int
		}
	}
}

// address is what a client in the cluster connects to.
func (s service) address(port string) (string, error) {
	if net.ParseIP(s.Spec.ClusterIP) == nil {
		return "", errors.New("it has no cluster IP")
	}
	var known []string
	for _, p := range s.Spec.Ports {
		number := strconv.Itoa(p.Port)
		if port == number || port == p.Name {
			return net.JoinHostPort(s.Spec.ClusterIP, number), nil
		}
		known = append(known, strings.TrimSpace(number+" "+p.Name))
	}
	return "", fmt.Errorf("it has no port %s, only %s", port, strings.Join(known, ", "))
}

// resolve looks up the Service's address for every connection, since the Service may be deleted and created again.
func (c *cluster) resolve(ctx context.Context, api *apiClient, f forwarding) (string, error) {
	var s service
	err := api.get(ctx, "/api/v1/namespaces/"+f.namespace+"/services/"+f.service, &s)
	if err == nil {
		var address string
		if address, err = s.address(f.port); err == nil {
			return address, nil
		}
	}
	return "", fmt.Errorf("service %s/%s: %w", f.namespace, f.service, err)
}

// forward listens until ctx ends or the cluster is gone. It calls ready as soon as it listens.
func (c *cluster) forward(ctx context.Context, f forwarding, ready func(address string)) error {
	if err := c.mustBeUp(); err != nil {
		return err
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	if _, err := c.resolve(ctx, api, f); err != nil {
		return err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(f.localPort)))
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	ready(listener.Addr().String())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go c.watchNamespace(ctx, cancel)
	context.AfterFunc(ctx, func() { listener.Close() })
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nonCancel(context.Cause(ctx))
		}
		go func() {
			if err := c.serve(ctx, api, f, conn); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
}

// nonCancel drops the error of a cancelled context.
func nonCancel(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// watchNamespace ends a forward whose cluster is removed.
func (c *cluster) watchNamespace(ctx context.Context, cancel context.CancelCauseFunc) {
	before, err := c.namespace().id()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ; err == nil; _, err = c.namespace().id() {
		if now, statErr := c.namespace().id(); statErr != nil || !os.SameFile(now, before) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	cancel(fmt.Errorf("cluster %s is gone", c.name))
}

func (c *cluster) serve(ctx context.Context, api *apiClient, f forwarding, client net.Conn) error {
	defer client.Close()
	address, err := c.resolve(ctx, api, f)
	if err != nil {
		return err
	}
	server, err := c.dial(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", f.target(), err)
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { client.Close(); server.Close() })
	defer stop()
	join(client, server)
	return nil
}

// join copies in both directions until both have ended. It passes on the end of one direction alone, because a client may
// close its side for writing and go on reading.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, err := io.Copy(way[0], way[1])
			if half, ok := way[0].(*net.TCPConn); ok && err == nil {
				_ = half.CloseWrite() // the other side may be gone
				return
			}
			a.Close()
			b.Close()
		})
	}
	both.Wait()
}

// forwardInBackground runs `forward` as a process of its own and returns once it listens.
func (c *cluster) forwardInBackground(ctx context.Context, f forwarding) error {
	if err := c.mustBeUp(); err != nil {
		return err
	}
	release, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	name := "forward-" + strconv.Itoa(f.localPort)
	if f.localPort == 0 {
		return errors.New("--background needs a port number, so that it can be found again")
	}
	if _, err := c.running(name); err == nil {
		if c.forwardTarget(name) == f.forwardLine() {
			fmt.Println(f.forwardLine())
			return nil
		}
		return fmt.Errorf("port %d is used by another forward: %s", f.localPort, c.forwardTarget(name))
	}
	return c.spawnForward(ctx, f, name)
}

func (f forwarding) forwardLine() string {
	return fmt.Sprintf("http://127.0.0.1:%d -> %s", f.localPort, f.target())
}

// spawnForward starts the child process. It writes one line to standard output as soon as it listens.
func (c *cluster) spawnForward(ctx context.Context, f forwarding, name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(c.log(name))
	if err != nil {
		return err
	}
	defer log.Close()
	answer, childEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer answer.Close()
	cmd := exec.Command(self, "--name", c.name, "forward", strconv.Itoa(f.localPort), f.target()) // it outlives us, so it has no context
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = c.checkout, childEnd, log, &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	childEnd.Close()
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	id, err := identify(cmd.Process.Pid)
	if err == nil {
		err = c.savePID(name, id)
	}
	if err != nil {
		return c.explain(name, err)
	}
	_ = answer.SetReadDeadline(time.Now().Add(15 * time.Second)) // a pipe made by Go supports deadlines
	line, err := io.ReadAll(io.LimitReader(answer, int64(len(f.forwardLine()))))
	if err != nil || string(line) != f.forwardLine() {
		_ = stopProcesses(ctx, []identity{id}, time.Second) // it is failing, and its own error says why
		os.Remove(c.pidFile(name))
		return c.explain(name, errors.New("it did not start"))
	}
	if _, err := writeFile(c.path("run", name+".target"), line, 0o644); err != nil {
		return err
	}
	fmt.Println(f.forwardLine())
	return nil
}

func (c *cluster) forwardTarget(name string) string {
	target, err := os.ReadFile(c.path("run", name+".target"))
	if err != nil {
		return name
	}
	return string(target)
}
