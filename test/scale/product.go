// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	interceptors = 2
	// profilePort is where the controller and the interceptors serve profiles.
	profilePort = "6060"
)

// helm runs Helm.
func helm(ctx context.Context, args ...string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "helm", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("helm %s: %w: %s", args[0], err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// install installs the chart as it is, but with one controller, and with profiles.
func install(ctx context.Context) error {
	args := []string{
		"install", product, "config/chart", "-n", product, "--create-namespace", "--wait", "--timeout", "2m",
		"--set", "image.repository=scale-to-zero.test/scale-to-zero", "--set-string", "image.tag=dev",
		"--set", "controller.replicas=1", "--set", "interceptor.replicas=" + strconv.Itoa(interceptors),
	}
	for _, component := range []string{"controller", "interceptor"} {
		args = append(args, "--set", component+".extraEnv[0].name=SCALE_TO_ZERO_PROFILE_ADDRESS",
			"--set", component+".extraEnv[0].value=:"+profilePort)
	}
	return helm(ctx, args...)
}

// stop stops the controller and then the interceptors, so that nobody rewrites the routes meanwhile.
func (w *world) stop(ctx context.Context) error {
	return errors.Join(w.scale(ctx, "controller", 0), w.scale(ctx, "interceptor", 0))
}

// scale sets how many replicas a component has, and waits until it has so many that are ready.
func (w *world) scale(ctx context.Context, component string, replicas int32) error {
	deployments, name := w.client.AppsV1().Deployments(product), product+"-"+component
	scale, err := deployments.GetScale(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("scaling the %s: %w", component, err)
	}
	scale.Spec.Replicas = replicas
	if _, err := deployments.UpdateScale(ctx, name, scale, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("scaling the %s: %w", component, err)
	}
	return poll(ctx, 3*time.Minute, fmt.Sprintf("%d ready pods of the %s", replicas, component), func() (bool, error) {
		pods, err := w.pods(ctx, component)
		return len(pods) == int(replicas) && !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return !isReady(p) }), err
	})
}

// pods returns the pods of a component, ending ones included.
func (w *world) pods(ctx context.Context, component string) ([]corev1.Pod, error) {
	list, err := w.client.CoreV1().Pods(product).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + component})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of the %s: %w", component, err)
	}
	return list.Items, nil
}

func isReady(p corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// findRoutes notes where the interceptors listen for each app. Every app has an interceptor; the apps take turns.
func (w *world) findRoutes(ctx context.Context) error {
	slices, err := w.client.DiscoveryV1().EndpointSlices("").List(ctx, metav1.ListOptions{LabelSelector: api.RoleLabel + "=" + api.RoleRoute})
	if err != nil {
		return fmt.Errorf("listing route slices: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range slices.Items {
		routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation])
		if err != nil {
			return fmt.Errorf("reading route slice %s/%s: %w", s.Namespace, s.Name, err)
		}
		a := w.apps[s.Namespace+"/"+routes.Service]
		if a == nil {
			continue
		}
		if len(s.Endpoints) == 0 {
			return fmt.Errorf("reading route slice %s/%s: it has no endpoint", s.Namespace, s.Name)
		}
		a.interceptorIndex = a.number % len(s.Endpoints)
		a.route = net.JoinHostPort(s.Endpoints[a.interceptorIndex].Addresses[0], strconv.Itoa(int(routes.Ports[0].Listen)))
	}
	return nil
}
