// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command coldstart measures the stages of a cold start from outside, through watches on the Deployment and its pods: from
// the request to the scale patch, from there to the ready pod, and from there to the first byte of the answer. Of the last
// stage it also measures how long Kubernetes takes to list the pod in an EndpointSlice, from which the interceptors learn
// it. Between these starts it scales the same Deployment by hand, to measure what Kubernetes itself takes.
//
// The Service must be opted in, its app must run in a Deployment of its own, and its cool-down should be short. The command
// must run where it can reach the Service's cluster IP.
//
//	coldstart -namespace NS -service NAME -deployment NAME [-n 20] [-plain NAME]
//
// With -matrix it makes apps of its own. Most have a twin that is started by hand: they listen after different times, and the kubelet
// probes them at different periods. Others are limited to little CPU, with and without more of it while they start (install the chart
// with startupCPU.enabled), or call each other. The ratios go to a file as JSON.
//
//	coldstart -matrix test/bench/coldstart/results.json [-n 10] [-only REGEXP] [-parallel 3]
//
// With -url and -host, the address of its proxy, it measures another product in the same way, such as the KEDA HTTP add-on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

type bench struct {
	client                         kubernetes.Interface
	namespace, service, deployment string
	direct                         string // the Service that selects the app's pods
	url, host                      string
	jitter                         time.Duration
	changes                        <-chan change
}

// change is a change that a watch reported.
type change struct {
	at       time.Time
	replicas int32 // replicas in the Deployment's spec, or -1
	ready    int   // pods that became Ready (1) or are gone (-1)
	listed   bool  // the EndpointSlices list a ready pod and listed none before
	counted  bool  // the Deployment's status counts a ready pod and counted none before
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "coldstart:", err)
		os.Exit(1) //nolint:gocritic // the signal handler need not be undone
	}
}

func run(ctx context.Context) error {
	b := &bench{}
	n := flag.Int("n", 20, "how many cold starts of each kind")
	flag.StringVar(&b.namespace, "namespace", "default", "namespace of the app")
	flag.StringVar(&b.service, "service", "", "opted-in Service")
	flag.StringVar(&b.deployment, "deployment", "", "its Deployment")
	path := flag.String("path", "/healthz", "what to request")
	plain := flag.String("plain", "",
		"for the starts by hand, a Deployment and its Service of the same kind that nobody else scales (default the same)")
	flag.StringVar(&b.url, "url", "", "where to send requests instead of to the Service")
	flag.StringVar(&b.host, "host", "", "their Host header")
	matrix := flag.String("matrix", "", "measure apps of its own, and write the ratios to this file")
	only := flag.String("only", "", "of these apps, those whose name matches this regular expression")
	parallel := flag.Int("parallel", 1, "how many of them at a time; they mostly wait")
	image := flag.String("image", "scale-to-zero.test/app:dev", "their image")
	flag.DurationVar(&b.jitter, "jitter", 0, "wait for up to so long before each, as a product's tickers may be met at any moment")
	flag.Parse()
	if *matrix == "" && (b.service == "" || b.deployment == "") || *n < 1 {
		return errors.New("-service and -deployment are needed, or -matrix, and -n of at least 1; see -help")
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	if b.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if *matrix != "" {
		return runMatrix(ctx, b.client, matrixOptions{image: *image, only: *only, file: *matrix, n: *n, parallel: *parallel})
	}
	figures, err := b.measure(ctx, *path, *plain, *n)
	if err != nil {
		return err
	}
	report(figures)
	return nil
}

// measure measures n cold starts in turn with as many starts by hand: of plain, or of the same Deployment if that is empty.
func (b *bench) measure(ctx context.Context, path, plain string, n int) (map[string][]time.Duration, error) {
	if err := b.follow(ctx, path); err != nil {
		return nil, err
	}
	hand := b
	if plain != "" {
		var err error
		hand = &bench{client: b.client, namespace: b.namespace, service: plain, deployment: plain, direct: plain}
		if hand.changes, err = hand.watch(ctx); err != nil {
			return nil, err
		}
	}
	figures := map[string][]time.Duration{}
	for i := range n {
		if hand != b { // nobody else scales it
			if err := hand.scale(ctx, 0); err != nil {
				return nil, fmt.Errorf("ending start %d by hand: %w", i, err)
			}
		}
		if err := errors.Join(b.cold(ctx, figures), hand.byHand(ctx, figures)); err != nil {
			return nil, fmt.Errorf("cold start %d: %w", i+1, err)
		}
	}
	if hand != b {
		return figures, hand.scale(ctx, 0)
	}
	return figures, nil
}

// follow watches the app, and finds out where to send its requests.
func (b *bench) follow(ctx context.Context, path string) error {
	b.direct = injector.DirectServiceName(b.service)
	if b.url != "" {
		b.direct = b.service
	} else if err := b.address(ctx, path); err != nil {
		return err
	}
	var err error
	b.changes, err = b.watch(ctx)
	return err
}

// address sets the URL of a path of the Service.
func (b *bench) address(ctx context.Context, path string) error {
	service, err := b.client.CoreV1().Services(b.namespace).Get(ctx, b.service, metav1.GetOptions{})
	if err != nil {
		return err
	}
	b.url = fmt.Sprintf("http://%s:%d%s", service.Spec.ClusterIP, service.Spec.Ports[0].Port, path)
	return nil
}

const (
	patched  = "request → scale patch"
	ready    = "scale patch → pod Ready"
	answered = "pod Ready → first byte"
	listed   = "of that: EndpointSlice → first byte"
	counted  = "Deployment's readyReplicas → first byte"
	whole    = "request → first byte"
	byHand   = "by hand: scale patch → pod Ready"
)

// cold measures one cold start by a request.
func (b *bench) cold(ctx context.Context, figures map[string][]time.Duration) error {
	if err := b.asleep(ctx); err != nil {
		return err
	}
	if b.jitter > 0 {
		select {
		case <-time.After(rand.N(b.jitter)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	first := make(chan time.Time, 1)
	failed := make(chan error, 1)
	begin := time.Now()
	go func() {
		trace := &httptrace.ClientTrace{GotFirstResponseByte: func() { first <- time.Now() }}
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, b.url, nil)
		if err != nil {
			failed <- err
			return
		}
		req.Host = b.host // the URL's if empty
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s answers %s", b.url, resp.Status)
		}
		if err == nil {
			err = resp.Body.Close()
		}
		failed <- err
	}()
	seen, err := b.start(ctx)
	if err != nil {
		return err
	}
	if err := <-failed; err != nil {
		return err
	}
	at := <-first
	add := func(name string, from, to time.Time) { figures[name] = append(figures[name], to.Sub(from)) }
	add(patched, begin, seen.scaled)
	add(ready, seen.scaled, seen.up)
	add(answered, seen.up, at)
	add(listed, seen.inSlice, at)
	add(counted, seen.counted, at)
	add(whole, begin, at)
	return nil
}

// byHand measures one start by `kubectl scale`. There is no request, so KEDA may scale to zero again before the pod is
// ready; then it tries again.
func (b *bench) byHand(ctx context.Context, figures map[string][]time.Duration) error {
	for {
		if err := b.scaleByHand(ctx, figures); !errors.Is(err, errTakenBack) {
			return err
		}
	}
}

func (b *bench) scaleByHand(ctx context.Context, figures map[string][]time.Duration) error {
	if err := b.asleep(ctx); err != nil {
		return err
	}
	if err := b.scale(ctx, 1); err != nil {
		return err
	}
	seen, err := b.start(ctx)
	if err != nil {
		return err
	}
	figures[byHand] = append(figures[byHand], seen.up.Sub(seen.scaled))
	return nil
}

func (b *bench) scale(ctx context.Context, replicas int) error {
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := b.client.AppsV1().Deployments(b.namespace).Patch(ctx, b.deployment, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	return err
}

var errTakenBack = errors.New("it was scaled to zero before its start was over")

// moments are the times at which the watches saw each step of a start.
type moments struct{ scaled, up, inSlice, counted time.Time }

// start waits until the Deployment is scaled up, its pod is ready, an EndpointSlice lists it, and the Deployment's status
// counts it.
func (b *bench) start(ctx context.Context) (moments, error) {
	var m moments
	for m.up.IsZero() || m.inSlice.IsZero() || m.counted.IsZero() {
		select {
		case c := <-b.changes:
			switch {
			case c.replicas > 0 && m.scaled.IsZero():
				m.scaled = c.at
			case c.replicas == 0 && !m.scaled.IsZero():
				return m, errTakenBack
			}
			if c.ready > 0 {
				m.up = c.at
			}
			if c.listed {
				m.inSlice = c.at
			}
			if c.counted {
				m.counted = c.at
			}
		case <-ctx.Done():
			return m, ctx.Err()
		}
	}
	return m, nil
}

// asleep waits until the Deployment is at zero and all its pods are gone.
func (b *bench) asleep(ctx context.Context) error {
	said := time.Now()
	for {
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			fmt.Fprintf(os.Stderr, "waiting until Deployment %s has no replicas and no pods\n", b.deployment)
		}
		d, err := b.client.AppsV1().Deployments(b.namespace).Get(ctx, b.deployment, metav1.GetOptions{})
		if err != nil {
			return err
		}
		pods, err := b.client.CoreV1().Pods(b.namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
		if err != nil {
			return err
		}
		if *d.Spec.Replicas == 0 && d.Status.ObservedGeneration == d.Generation && len(pods.Items) == 0 {
			return b.drained(ctx)
		}
		select {
		case <-b.changes:
		case <-time.After(100 * time.Millisecond): // terminating pods do not change the ready ones counted here
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drained discards the changes that have already arrived, so that the next one is new.
func (b *bench) drained(ctx context.Context) error {
	for {
		select {
		case <-b.changes:
		case <-time.After(300 * time.Millisecond):
			return ctx.Err()
		}
	}
}

func (b *bench) watch(ctx context.Context) (<-chan change, error) {
	d, err := b.client.AppsV1().Deployments(b.namespace).Get(ctx, b.deployment, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	deployments, err := b.client.AppsV1().Deployments(b.namespace).Watch(ctx, metav1.SingleObject(metav1.ObjectMeta{Name: b.deployment}))
	if err != nil {
		return nil, err
	}
	pods, err := b.client.CoreV1().Pods(b.namespace).Watch(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
	if err != nil {
		return nil, err
	}
	endpoints, err := b.client.DiscoveryV1().EndpointSlices(b.namespace).Watch(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + b.direct,
	})
	if err != nil {
		return nil, err
	}
	f := follower{changes: make(chan change, 1024), replicas: -1, up: map[types.UID]bool{}}
	go func() {
		for {
			select {
			case e := <-deployments.ResultChan():
				f.deployment(e)
			case e := <-pods.ResultChan():
				f.pod(e)
			case e := <-endpoints.ResultChan():
				f.endpoints(e)
			case <-ctx.Done():
				return
			}
		}
	}()
	return f.changes, nil
}

// follower turns the objects of the watches into changes.
type follower struct {
	changes         chan change
	replicas        int32
	up              map[types.UID]bool
	listed, counted bool
}

func (f *follower) deployment(e watch.Event) {
	d, ok := e.Object.(*appsv1.Deployment)
	if !ok {
		return
	}
	if *d.Spec.Replicas != f.replicas {
		f.replicas = *d.Spec.Replicas
		f.changes <- change{at: time.Now(), replicas: f.replicas}
	}
	if is := d.Status.ReadyReplicas > 0; is != f.counted {
		f.counted = is
		f.changes <- change{at: time.Now(), replicas: -1, counted: is}
	}
}

func (f *follower) pod(e watch.Event) {
	p, ok := e.Object.(*corev1.Pod)
	if is := ok && e.Type != watch.Deleted && podReady(p); ok && is != f.up[p.UID] {
		f.up[p.UID] = is
		f.changes <- change{at: time.Now(), replicas: -1, ready: map[bool]int{true: 1, false: -1}[is]}
	}
}

func (f *follower) endpoints(e watch.Event) {
	es, ok := e.Object.(*discoveryv1.EndpointSlice)
	if !ok {
		return
	}
	is := slices.ContainsFunc(es.Endpoints, func(p discoveryv1.Endpoint) bool { return p.Conditions.Ready == nil || *p.Conditions.Ready })
	if is != f.listed {
		f.listed = is
		f.changes <- change{at: time.Now(), replicas: -1, listed: is}
	}
}

func podReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func report(figures map[string][]time.Duration) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer w.Flush()
	fmt.Fprintln(w, strings.Join([]string{"stage", "min ms", "median ms", "max ms", "n", ""}, "\t"))
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }
	for _, name := range []string{patched, ready, answered, listed, counted, whole, byHand} {
		f := slices.Sorted(slices.Values(figures[name]))
		fmt.Fprintln(w, strings.Join([]string{name, ms(f[0]), ms(f[len(f)/2]), ms(f[len(f)-1]), fmt.Sprint(len(f)), ""}, "\t"))
	}
	fmt.Fprintf(w, "whole to by hand\t\t%.2f\t\t\t\n", float64(median(figures[whole]))/float64(median(figures[byHand])))
}

func median(f []time.Duration) time.Duration { return slices.Sorted(slices.Values(f))[len(f)/2] }
