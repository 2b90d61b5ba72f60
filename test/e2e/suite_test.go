// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

const (
	release   = "scale-to-zero" // of our chart, and its namespace
	clientsNS = "e2e-clients"   // of the pod that sends requests
)

var (
	kube   client.WithWatch
	config *rest.Config
	scheme = runtime.NewScheme()
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	for _, name := range []string{"KUBECONFIG", "E2E_CHART", "E2E_IMAGE", "E2E_APP_IMAGE", "E2E_APP_CHART", "HELM", "HELM3", "KUBECTL"} {
		if os.Getenv(name) == "" {
			return 1, fmt.Errorf("%s is not set: run these tests with `make e2e`", name)
		}
	}
	log.SetLogger(logr.Discard())
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), keda.AddToScheme(scheme)); err != nil {
		return 1, err
	}
	var err error
	if config, err = ctrl.GetConfig(); err != nil {
		return 1, err
	}
	config.QPS, config.Burst = 200, 400
	if kube, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return 1, err
	}
	ctx := context.Background()
	if err := install(ctx); err != nil {
		return 1, err
	}
	if err := startClient(ctx); err != nil {
		return 1, err
	}
	code := m.Run()
	return code, kube.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: clientsNS}})
}

// install installs our chart, or upgrades to it. Values come from args alone.
func install(ctx context.Context, args ...string) error {
	repository, tag, _ := strings.Cut(os.Getenv("E2E_IMAGE"), ":")
	_, err := command(ctx, os.Getenv("HELM"), append([]string{
		"upgrade", "--install", release, os.Getenv("E2E_CHART"), "-n", release, "--create-namespace",
		"--set", "image.repository=" + repository, "--set-string", "image.tag=" + tag,
		"--set-string", "controller.podAnnotations.e2e=" + fmt.Sprint(time.Now().Unix()),
		"--set-string", "interceptor.podAnnotations.e2e=" + fmt.Sprint(time.Now().Unix()),
		"--set", "startupCPU.enabled=true", "--wait", "--timeout", "3m",
	}, args...)...)
	return err
}

// startClient starts the pod that sends the requests.
func startClient(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: clientsNS}}
	if err := kube.Create(ctx, ns); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: clientsNS, Name: "client"},
		Spec: corev1.PodSpec{
			Containers:                    []corev1.Container{{Name: "client", Image: os.Getenv("E2E_APP_IMAGE"), Args: []string{"sleep"}}},
			TerminationGracePeriodSeconds: new(int64(1)),
		},
	}
	if err := kube.Create(ctx, pod); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	_, err := command(ctx, os.Getenv("KUBECTL"), "wait", "-n", clientsNS, "--for=condition=Ready", "pod/client", "--timeout=60s")
	return err
}

// command runs a command and returns its standard output; the error has its standard error.
func command(ctx context.Context, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, name, args...)
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return stdout.String(), fmt.Errorf("running %s %s: %w\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// must runs a command that has to succeed.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, os.Getenv("KUBECTL"), args...)
}

// answer is what test/app's client prints for each request.
type answer struct {
	Status       int     `json:"status"`
	Body         string  `json:"body"`
	Bytes        int64   `json:"bytes"`
	Milliseconds float64 `json:"ms"`
	FirstByteMs  float64 `json:"firstByteMs"`
	Held         string  `json:"held"`
	Error        string  `json:"error"`
}

// get sends requests from the client pod, with the flags of `app get`, and returns all answers. A request without an
// answer fails the test.
func get(t *testing.T, args ...string) []answer {
	t.Helper()
	answers, err := tryGet(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

// background is get in a goroutine. The test receives the answers, or none if it failed.
func background(t *testing.T, args ...string) <-chan []answer {
	t.Helper()
	done := make(chan []answer, 1)
	go func() {
		defer close(done)
		answers, err := tryGet(t.Context(), args...)
		if err != nil {
			t.Error(err)
		}
		done <- answers
	}()
	return done
}

func tryGet(ctx context.Context, args ...string) ([]answer, error) {
	out, err := command(ctx, os.Getenv("KUBECTL"), append([]string{"exec", "-n", clientsNS, "client", "--", "/app", "get"}, args...)...)
	if err != nil {
		return nil, err
	}
	var answers []answer
	d := json.NewDecoder(strings.NewReader(out))
	for d.More() {
		var a answer
		if err := d.Decode(&a); err != nil {
			return nil, fmt.Errorf("reading %q: %w", out, err)
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// eventually waits until check returns nil. If it never does, the test fails with its last error.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: still not so: %v", what, err)
		case <-tick.C:
		}
	}
}
