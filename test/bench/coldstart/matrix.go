// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// kind is a kind of app.
type kind struct {
	listens time.Duration // after its process has started
	period  int32         // of its readiness probe, in seconds
	goal    float64       // the highest ratio of a whole cold start to a start by hand
}

func (k kind) name() string {
	return fmt.Sprintf("listens-%dms-period-%ds", k.listens.Milliseconds(), k.period)
}

func kinds() []kind {
	var all []kind
	for _, listens := range []time.Duration{0, time.Second, 3200 * time.Millisecond, 8 * time.Second} {
		for _, period := range []int32{1, 5, 10} {
			k := kind{listens, period, 1.1}
			if listens == 3200*time.Millisecond && period == 10 {
				k.goal = 0.5
			}
			all = append(all, k)
		}
	}
	return all
}

// row is one figure in the file of results. A smaller ratio is better.
type row struct {
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	Reference float64 `json:"reference"`
	Ratio     float64 `json:"ratio"`
	Goal      float64 `json:"goal"`
}

// runMatrix measures each kind of app: the median of n whole cold starts, in starts by hand.
func runMatrix(ctx context.Context, client kubernetes.Interface, image, only string, n int, file string) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	namespace, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "coldstart-"},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	defer func() {
		err := client.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), namespace.Name, metav1.DeleteOptions{})
		if err != nil {
			fmt.Fprintln(os.Stderr, "removing the namespace:", err)
		}
	}()
	var rows []row
	for _, k := range kinds() {
		if !wanted.MatchString(k.name()) {
			continue
		}
		app, twin := k.name(), k.name()+"-by-hand"
		if err := k.deploy(ctx, client, namespace.Name, image, app, true); err != nil {
			return err
		}
		if err := k.deploy(ctx, client, namespace.Name, image, twin, false); err != nil {
			return err
		}
		b := &bench{client: client, namespace: namespace.Name, service: app, deployment: app}
		figures, err := b.measure(ctx, "/healthz", twin, n)
		if err != nil {
			return fmt.Errorf("%s: %w", app, err)
		}
		ms := func(f []time.Duration) float64 { return float64(median(f).Milliseconds()) }
		r := row{Name: app, Value: ms(figures[whole]), Unit: "ms", Reference: ms(figures[byHand]), Goal: k.goal}
		r.Ratio = float64(int(1000*r.Value/r.Reference)) / 1000
		rows = append(rows, r)
		fmt.Printf("%-28s %8.0f ms, by hand %8.0f ms, ratio %.3f, goal %.2f\n", r.Name, r.Value, r.Reference, r.Ratio, r.Goal)
	}
	content, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(content, '\n'), 0o644)
}

// deploy makes an app of the kind and its Service.
func (k kind) deploy(ctx context.Context, client kubernetes.Interface, namespace, image, name string, optedIn bool) error {
	labels := map[string]string{"app": name}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{injector.Prefix + "cooldown": "3s"}},
		Spec: corev1.ServiceSpec{
			Selector: labels, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
	if optedIn {
		service.Labels = map[string]string{injector.OptInLabel: "true"}
	}
	if _, err := client.CoreV1().Services(namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: new(int64(1)),
					Containers: []corev1.Container{{
						Name: "app", Image: image, Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
						Env: []corev1.EnvVar{{Name: "START_DELAY", Value: k.listens.String()}, {Name: "READY_DELAY", Value: "0s"}},
						ReadinessProbe: &corev1.Probe{
							PeriodSeconds: k.period,
							ProbeHandler: corev1.ProbeHandler{
								HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)},
							},
						},
					}},
				},
			},
		},
	}
	_, err := client.AppsV1().Deployments(namespace).Create(ctx, deployment, metav1.CreateOptions{})
	return err
}
