// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	// appLabel is on the Services and Deployments of the apps.
	appLabel = "scale-test"
	// appPort is where this program answers for all pods of the apps.
	appPort = 18080
	// cooldown is the apps': the shorter it is, the sooner all sleep again.
	cooldown = 20 * time.Second
	// maxApps is how many pods kwok has addresses for.
	maxApps = 30_000
)

// startsAwake says that the app of this number has a pod when scale-to-zero finds it. The others are at zero replicas.
func startsAwake(number int) bool { return number%10 == 0 }

// newService returns an app's Service. kube-proxy leaves it alone: that would only cost time, since requests are sent to the
// interceptors' addresses, as kube-proxy does.
func newService(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{"scale-to-zero": "true", appLabel: "app", "service.kubernetes.io/service-proxy-name": "none"},
			Annotations: map[string]string{"scale-to-zero/cooldown": cooldown.String()},
		},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(appPort)}},
		},
	}
}

func newDeployment(name string, awake bool) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	replicas := int32(0)
	if awake {
		replicas = 1
	}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{appLabel: "app"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, RevisionHistoryLimit: new(int32(1)),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Containers: []corev1.Container{{
						Name: "app", Image: "scale-to-zero.test/none:1",
						Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: appPort}},
						ReadinessProbe: &corev1.Probe{
							ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(appPort)}},
						},
					}},
					NodeSelector: map[string]string{"type": "kwok"}, AutomountServiceAccountToken: new(false),
					Tolerations: []corev1.Toleration{{Key: "kwok", Operator: corev1.TolerationOpExists}},
				},
			},
		},
	}
}

// serveApps answers for all pods until ctx ends: every address of kwok's pods is this network namespace's own.
func serveApps(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", "0.0.0.0:"+strconv.Itoa(appPort))
	if err != nil {
		return fmt.Errorf("listening for the apps' pods: %w", err)
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }),
		ReadHeaderTimeout: time.Minute,
	}
	context.AfterFunc(ctx, func() { server.Close() })
	go func() { _ = server.Serve(listener) }()
	return nil
}
