// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
)

// restless is how long an app may stay awake without a request before this counts as a problem: after a restart of its
// own, KEDA may wait for a minute. It doubles where nodes are lost, and KEDA with them.
func (w *world) restless() time.Duration {
	if w.options.lose > 0 {
		return 6 * time.Minute
	}
	return 3 * time.Minute
}

// world is a namespace with the apps under test.
type world struct {
	options   options
	client    kubernetes.Interface
	namespace string
	ledger    *ledger
	report    *report
	apps      []*app
	stop      context.CancelFunc // of the watches
}

// newWorld makes the apps, which are opted in, and waits until all of them sleep: then everything works.
func newWorld(ctx context.Context, o options, out io.Writer) (*world, error) {
	c, err := config.GetConfigWithContext(o.context)
	if err != nil {
		return nil, fmt.Errorf("finding a cluster: %w", err)
	}
	c.QPS, c.Burst = 100, 200
	w := &world{options: o, report: newReport(out)}
	if w.client, err = kubernetes.NewForConfig(c); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	ns, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "drive-"}},
		metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("making a namespace: %w", err)
	}
	w.namespace = ns.Name
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	for _, step := range []func() error{
		func() error { return w.populate(ctx) }, func() error { return w.watch(watching) }, func() error { return w.settle(ctx) },
	} {
		if err := step(); err != nil {
			return nil, errors.Join(err, w.remove(context.WithoutCancel(ctx)))
		}
	}
	return w, nil
}

// awake says that the app of this number stays awake.
func (w *world) awake(i int) bool { return w.options.longest > 0 && i%2 == 0 }

func (w *world) populate(ctx context.Context) error {
	for i := range w.options.apps {
		name, cooldown := fmt.Sprintf("app%d", i), "1s"
		if w.awake(i) {
			cooldown = "20m"
		}
		service, err := w.client.CoreV1().Services(w.namespace).Create(ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Labels: map[string]string{"scale-to-zero": "true"},
				Annotations: map[string]string{"scale-to-zero/cooldown": cooldown},
			},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": name},
				Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("making a Service: %w", err)
		}
		address := net.JoinHostPort(service.Spec.ClusterIP, "80")
		if w.ledger == nil {
			if w.ledger, err = newLedger(ctx, address); err != nil {
				return err
			}
		}
		if _, err = w.client.AppsV1().Deployments(w.namespace).Create(ctx, w.deployment(name, i), metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("making a Deployment: %w", err)
		}
		a := newApp(name, address, w.ledger, w.report)
		w.apps = append(w.apps, a)
		if w.options.handOver > 0 && i%4 >= 2 {
			if err := w.handOver(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// deployment is an app that starts at once, or takes a moment. Every third one has no readiness probe, so that it is ready
// before it listens; another third listens before it is ready, refuses what comes before its probe has succeeded, and crashes now and
// then before that.
func (w *world) deployment(name string, i int) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	c := corev1.Container{
		Name: "app", Image: w.options.image,
		Env: []corev1.EnvVar{{Name: "LEDGER", Value: w.ledger.url}, {Name: "START_DELAY", Value: fmt.Sprintf("%dms", i%2*200)}},
	}
	var volumes []corev1.Volume
	if i%3 != 2 {
		c.ReadinessProbe = &corev1.Probe{
			PeriodSeconds: int32(1 + i%3),
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}},
		}
	}
	if i%3 == 1 {
		c.Env = append(c.Env, corev1.EnvVar{Name: "READY_DELAY", Value: "300ms"}, corev1.EnvVar{Name: "CRASHES", Value: "2"},
			corev1.EnvVar{Name: "CRASH_DIR", Value: "/crashes"})
		c.VolumeMounts = []corev1.VolumeMount{{Name: "crashes", MountPath: "/crashes"}}
		volumes = []corev1.Volume{{Name: "crashes", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	}
	// Kubernetes stops a pod and removes it from everybody's endpoints at the same time. An app that closes its port at once
	// resets the requests that are still sent to it. Kubernetes' documentation recommends this hook.
	if seconds := int64(w.linger(i) / time.Second); seconds > 0 {
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: seconds}}}
	}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}, RevisionHistoryLimit: new(int32(1)),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Containers: []corev1.Container{c}, Volumes: volumes, TerminationGracePeriodSeconds: new(int64(40)),
					AutomountServiceAccountToken: new(false), Tolerations: w.tolerations(),
				},
			},
		},
	}
}

// linger is how long the app of this number continues after it is told to stop. Then it ends its streams, as apps do. One that stays
// awake leaves its node when that is drained, and continues until its streams have ended by themselves.
func (w *world) linger(i int) time.Duration {
	if w.awake(i) && w.options.drain > 0 {
		return max(w.options.linger, w.options.longest+2*time.Second)
	}
	return w.options.linger
}

// tolerations let the apps leave a lost node as soon as Kubernetes has noticed, and not 5 minutes later.
func (w *world) tolerations() []corev1.Toleration {
	if w.options.lose == 0 {
		return nil
	}
	var out []corev1.Toleration
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		out = append(out, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(0)),
		})
	}
	return out
}

// watch keeps the apps' states until ctx ends.
func (w *world) watch(ctx context.Context) error {
	byName := map[string]*app{}
	for _, a := range w.apps {
		byName[a.name] = a
	}
	factory := informers.NewSharedInformerFactoryWithOptions(w.client, 0, informers.WithNamespace(w.namespace))
	saw := func(o any, gone bool) {
		if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = last.Obj
		}
		switch o := o.(type) {
		case *appsv1.Deployment:
			if a := byName[o.Name]; a != nil && !gone {
				a.sawDeployment(o)
			}
		case *corev1.Pod:
			if a := byName[o.Labels["app"]]; a != nil {
				a.sawPod(o, gone)
			}
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { saw(o, false) },
		UpdateFunc: func(_, o any) { saw(o, false) },
		DeleteFunc: func(o any) { saw(o, true) },
	}
	for _, informer := range []cache.SharedIndexInformer{factory.Apps().V1().Deployments().Informer(), factory.Core().V1().Pods().Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	factory.Start(ctx.Done())
	return nil
}

// settle waits until the apps sleep for the first time, and until those that stay awake are intercepted.
func (w *world) settle(ctx context.Context) error {
	limit := time.Now().Add(w.restless())
	for i, a := range w.apps {
		if w.awake(i) {
			if err := w.intercepted(ctx, a.name, limit); err != nil {
				return err
			}
			continue
		}
		if !a.until(ctx, limit, a.asleep) {
			return fmt.Errorf("waiting for %s to sleep for the first time: it did not within %s", a.name, w.restless())
		}
	}
	return nil
}

func (w *world) intercepted(ctx context.Context, name string, limit time.Time) error {
	return poll(ctx, time.Until(limit), "the Service "+name+" to be intercepted", func() (bool, error) {
		s, err := w.client.CoreV1().Services(w.namespace).Get(ctx, name, metav1.GetOptions{})
		return err == nil && s.Spec.Selector["scale-to-zero/intercepted"] != "", nil //nolint:nilerr // asked again
	})
}

// poll waits until is holds, or fails.
func poll(ctx context.Context, limit time.Duration, what string, is func() (bool, error)) error {
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, limit, true, func(context.Context) (bool, error) { return is() })
	if wait.Interrupted(err) {
		return fmt.Errorf("waiting for %s: %w", what, err)
	}
	return err
}

// remove deletes the namespace and ends the watches.
func (w *world) remove(ctx context.Context) error {
	w.stop()
	if w.ledger != nil {
		w.ledger.close()
	}
	if err := w.client.CoreV1().Namespaces().Delete(ctx, w.namespace, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("deleting the namespace: %w", err)
	}
	return nil
}

// random returns a random source of its own for each part of a run.
func (w *world) random(part int) *rand.Rand {
	return rand.New(rand.NewPCG(w.options.seed, uint64(part)))
}

// tells prints the progress until ctx ends, and adds what is counted elsewhere.
func (w *world) tells(ctx context.Context) {
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			w.report.progress()
		case <-ctx.Done():
			return
		}
	}
}

// drained waits for all parts and adds the last counts.
func (w *world) drained(everybody *sync.WaitGroup) {
	everybody.Wait()
	closed := 0
	for _, a := range w.apps {
		closed += a.lines.closedIdle()
	}
	w.report.finish(w.ledger.repeated(), closed)
}

// draw returns a random duration below most, or 0 if that is 0 or less.
func draw(rng *rand.Rand, most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(rng.Int64N(int64(most)))
}
