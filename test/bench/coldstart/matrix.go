// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// row is one figure in the file of results. A smaller ratio is better.
type row struct {
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	Reference float64 `json:"reference"`
	Ratio     float64 `json:"ratio"`
	Goal      float64 `json:"goal"`
}

// trial measures one row.
type trial struct {
	name string
	goal float64 // the highest ratio
	// run returns what is measured, and its reference, n times each.
	run func(ctx context.Context, l *lab) (value, reference []time.Duration, err error)
}

// lab is where trials run.
type lab struct {
	client           kubernetes.Interface
	namespace, image string
	n                int
}

// trials are all rows, in their order.
func trials() []trial {
	var all []trial
	for _, listens := range []time.Duration{0, time.Second, 3200 * time.Millisecond, 8 * time.Second} {
		for _, period := range []int32{1, 5, 10} {
			a := app{name: fmt.Sprintf("listens-%dms-period-%ds", listens.Milliseconds(), period), listens: listens, period: period}
			t := trial{a.name, 1.1, a.besideTwin}
			if listens == 3200*time.Millisecond && period == 10 {
				t.goal = 0.5
			}
			all = append(all, t)
		}
	}
	return append(all, trial{"limited-to-200m-startup-cpu-2", 0.5, boosted}, trial{"chain-of-three", 1.3, chain})
}

// matrixOptions say what to measure.
type matrixOptions struct {
	image, only, file string
	n, parallel       int
}

// runMatrix measures trials, and writes the medians and their ratios to a file.
func runMatrix(ctx context.Context, client kubernetes.Interface, o matrixOptions) error {
	wanted, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	chosen := slices.DeleteFunc(trials(), func(t trial) bool { return !wanted.MatchString(t.name) })
	rows := make([]row, len(chosen))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(o.parallel)
	for i, t := range chosen {
		group.Go(func() error {
			var err error
			if rows[i], err = t.measure(ctx, lab{client: client, image: o.image, n: o.n}); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return write(o.file, rows)
}

// write puts rows into a file, in the order of trials. Rows of other trials that the file has already stay.
func write(file string, rows []row) error {
	var old []row
	content, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(content, &old)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading earlier results: %w", err)
	}
	var all []row
	for _, t := range trials() {
		named := func(r row) bool { return r.Name == t.name }
		if i := slices.IndexFunc(rows, named); i >= 0 {
			all = append(all, rows[i])
		} else if i := slices.IndexFunc(old, named); i >= 0 {
			all = append(all, old[i])
		}
	}
	if content, err = json.MarshalIndent(all, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(file, append(content, '\n'), 0o644)
}

// measure runs a trial in a namespace of its own.
func (t trial) measure(ctx context.Context, l lab) (row, error) {
	namespace, err := l.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "coldstart-"},
	}, metav1.CreateOptions{})
	if err != nil {
		return row{}, err
	}
	l.namespace = namespace.Name
	defer func() {
		err := l.client.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), namespace.Name, metav1.DeleteOptions{})
		if err != nil {
			fmt.Fprintln(os.Stderr, "removing the namespace:", err)
		}
	}()
	value, reference, err := t.run(ctx, &l)
	if err != nil {
		return row{}, err
	}
	ms := func(f []time.Duration) float64 { return float64(median(f).Milliseconds()) }
	r := row{Name: t.name, Value: ms(value), Unit: "ms", Reference: ms(reference), Goal: t.goal}
	r.Ratio = float64(int(1000*r.Value/r.Reference)) / 1000
	fmt.Printf("%-30s %8.0f ms, reference %8.0f ms, ratio %.3f, goal %.2f\n", r.Name, r.Value, r.Reference, r.Ratio, r.Goal)
	return r, nil
}

// app is an app to deploy.
type app struct {
	name    string
	byHand  bool          // not opted in
	listens time.Duration // after its process has started
	period  int32         // of its readiness probe, in seconds
	env     map[string]string
	limits  corev1.ResourceList
	// annotations are of its Service.
	annotations map[string]string
}

// besideTwin measures the cold starts of an app, in turn with starts by hand of a twin.
func (a app) besideTwin(ctx context.Context, l *lab) (value, reference []time.Duration, err error) {
	twin := a
	twin.name, twin.byHand = a.name+"-by-hand", true
	b, err := a.deploy(ctx, l)
	if err != nil {
		return nil, nil, err
	}
	if _, err := twin.deploy(ctx, l); err != nil {
		return nil, nil, err
	}
	figures, err := b.measure(ctx, "/healthz", twin.name, l.n)
	return figures[whole], figures[byHand], err
}

// boosted measures an app that needs much CPU to start and has little, with more CPU while it starts and, in turn, without.
func boosted(ctx context.Context, l *lab) (value, reference []time.Duration, err error) {
	slow := app{
		name: "without", period: 1, env: map[string]string{"START_CPU": "1500ms"},
		limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m")},
	}
	fast := slow
	fast.name, fast.annotations = "with", map[string]string{injector.Prefix + "startup-cpu": "2"}
	var both []*bench
	for _, a := range []app{fast, slow} {
		b, err := a.deploy(ctx, l)
		if err != nil {
			return nil, nil, err
		}
		if err := b.follow(ctx, "/healthz"); err != nil {
			return nil, nil, err
		}
		both = append(both, b)
	}
	figures := []map[string][]time.Duration{{}, {}}
	for range l.n {
		for i, b := range both {
			if err := b.cold(ctx, figures[i]); err != nil {
				return nil, nil, err
			}
		}
	}
	return figures[0][whole], figures[1][whole], nil
}

// chain measures the first answer of a web app that asks an API that asks a database, from the third wake on. The reference is the
// slowest of the three alone.
func chain(ctx context.Context, l *lab) (value, reference []time.Duration, err error) {
	var all []*bench
	for name, env := range map[string]map[string]string{
		"web": {"CALLS": "http://api/chain"},
		"api": {"CALLS": "tcp://db:9000"},
		"db":  {"TCP_PORT": "9000"},
	} {
		a := app{name: name, listens: 3200 * time.Millisecond, period: 10, env: env}
		b, err := a.deploy(ctx, l)
		if err != nil {
			return nil, nil, err
		}
		if err := b.follow(ctx, "/healthz"); err != nil {
			return nil, nil, err
		}
		all = append(all, b)
	}
	for _, b := range all {
		var alone []time.Duration
		for range l.n {
			took, err := firstByte(ctx, b.url, b)
			if err != nil {
				return nil, nil, err
			}
			alone = append(alone, took)
		}
		if reference == nil || median(alone) > median(reference) {
			reference = alone
		}
	}
	web := all[slices.IndexFunc(all, func(b *bench) bool { return b.service == "web" })]
	if err := web.address(ctx, "/chain"); err != nil {
		return nil, nil, err
	}
	for i := range 2 + l.n {
		took, err := firstByte(ctx, web.url, all...)
		if err != nil {
			return nil, nil, err
		}
		if i >= 2 {
			value = append(value, took)
		}
	}
	return value, reference, nil
}

// firstByte measures a request from its beginning to the first byte of its answer, once all of some apps are asleep.
func firstByte(ctx context.Context, url string, asleep ...*bench) (time.Duration, error) {
	for range 2 { // the last to fall asleep may be the first of the list
		for _, b := range asleep {
			if err := b.asleep(ctx); err != nil {
				return 0, err
			}
		}
	}
	begin := time.Now()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return 0, err
	}
	took := time.Since(begin)
	if response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, response.Status)
	}
	return took, errors.Join(err, response.Body.Close())
}

// deploy makes the app and its Service. For an app of a chain, the Service has its line of bytes too.
func (a app) deploy(ctx context.Context, l *lab) (*bench, error) {
	labels := map[string]string{"app": a.name}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: a.name, Annotations: map[string]string{injector.Prefix + "cooldown": "3s"}},
		Spec: corev1.ServiceSpec{
			Selector: labels, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
	maps.Copy(service.Annotations, a.annotations)
	if !a.byHand {
		service.Labels = map[string]string{injector.OptInLabel: "true"}
	}
	env := []corev1.EnvVar{
		{Name: "NAME", Value: a.name}, {Name: "START_DELAY", Value: a.listens.String()}, {Name: "READY_DELAY", Value: "0s"},
	}
	ports := []corev1.ContainerPort{{ContainerPort: 8080}}
	for key, value := range a.env {
		env = append(env, corev1.EnvVar{Name: key, Value: value})
		if key == "TCP_PORT" {
			service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: "line", Port: 9000})
			ports = append(ports, corev1.ContainerPort{ContainerPort: 9000})
		}
	}
	if _, err := l.client.CoreV1().Services(l.namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	requests := corev1.ResourceList{}
	if len(a.limits) > 0 {
		requests[corev1.ResourceCPU] = resource.MustParse("50m")
	}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: a.name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: new(int64(1)),
					Containers: []corev1.Container{{
						Name: "app", Image: l.image, Ports: ports, Env: env,
						Resources: corev1.ResourceRequirements{Limits: a.limits, Requests: requests},
						ReadinessProbe: &corev1.Probe{
							PeriodSeconds: a.period,
							ProbeHandler: corev1.ProbeHandler{
								HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)},
							},
						},
					}},
				},
			},
		},
	}
	b := &bench{client: l.client, namespace: l.namespace, service: a.name, deployment: a.name}
	_, err := l.client.AppsV1().Deployments(l.namespace).Create(ctx, deployment, metav1.CreateOptions{})
	return b, err
}
