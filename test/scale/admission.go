// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

const (
	admissionRate = 500 // Services each second
	// admissionGoal is how long the slowest hundredth may take, in milliseconds.
	admissionGoal = 10
)

// admission asks the webhook about Services, as the API server does when somebody writes them, at a fixed rate.
func (m *measurement) admission(ctx context.Context) error {
	period := 20 * time.Second
	if m.options.quick {
		period = 3 * time.Second
	}
	hook, err := m.findWebhook(ctx)
	if err != nil {
		return err
	}
	defer hook.client.CloseIdleConnections()
	reviews, err := m.reviews(ctx)
	if err != nil {
		return err
	}
	if err := hook.ask(ctx, reviews[0]); err != nil {
		return err
	}
	before, err := usages()
	if err != nil {
		return err
	}
	latencies, err := hook.askAtRate(ctx, reviews, admissionRate, period)
	if err != nil {
		return err
	}
	after, err := usages()
	if err != nil {
		return err
	}
	m.figures.add("admission-p50", percentile(latencies, 50), "ms")
	m.figures.limit("admission-p99", percentile(latencies, 99), "ms", admissionGoal, 1)
	m.figures.add("admission-rate", float64(len(latencies))/period.Seconds(), "Services/s")
	m.figures.limit("admission-memory", after["controller"].memory/(1<<20), "MiB", before["controller"].memory/(1<<20), 1.25)
	m.figures.add("admission-cpu", 1000*(after["controller"].cpu-before["controller"].cpu).Seconds()/float64(len(latencies)),
		"ms of CPU per Service")
	return nil
}

// webhook is the controller's, as the API server calls it.
type webhook struct {
	client *http.Client
	url    string
}

func (m *measurement) findWebhook(ctx context.Context) (*webhook, error) {
	configuration, err := m.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, product, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the webhook's configuration: %w", err)
	}
	pods, err := m.pods(ctx, "controller")
	if err != nil || len(pods) == 0 {
		return nil, errors.Join(err, errors.New("finding the webhook: there is no controller"))
	}
	for _, h := range configuration.Webhooks {
		if !strings.HasPrefix(h.Name, "services.") {
			continue
		}
		service := h.ClientConfig.Service
		name := service.Name + "." + service.Namespace + ".svc"
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(h.ClientConfig.CABundle)
		return &webhook{
			url: "https://" + net.JoinHostPort(pods[0].Status.PodIP, "9443") + *service.Path,
			client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
				TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: name, MinVersion: tls.VersionTLS13},
				ForceAttemptHTTP2: true,
			}},
		}, nil
	}
	return nil, errors.New("finding the webhook: there is none for Services")
}

// reviews are questions about Services that exist and about new ones, as JSON.
func (m *measurement) reviews(ctx context.Context) ([][]byte, error) {
	list, err := m.client.CoreV1().Services(m.namespace).List(ctx, metav1.ListOptions{LabelSelector: appLabel, Limit: 50})
	if err != nil {
		return nil, fmt.Errorf("listing Services: %w", err)
	}
	var all [][]byte
	for i := range list.Items {
		s := &list.Items[i]
		fresh := newService(fmt.Sprintf("new-%d", i))
		fresh.Namespace = s.Namespace
		changed := s.DeepCopy()
		changed.Annotations["example.com/revision"] = "2"
		for _, pair := range []struct{ now, before *corev1.Service }{{changed, s}, {fresh, nil}} {
			b, err := review(fmt.Sprintf("%d-%t", i, pair.before != nil), pair.now, pair.before)
			if err != nil {
				return nil, err
			}
			all = append(all, b)
		}
	}
	return all, nil
}

// review asks about a Service. Without one from before, it is created.
func review(uid string, now, before *corev1.Service) ([]byte, error) {
	kind := metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
	r := &admissionv1.AdmissionRequest{
		UID: types.UID(uid), Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Service"},
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "services"},
		Name:     now.Name, Namespace: now.Namespace, Operation: admissionv1.Create,
		Options: runtime.RawExtension{Raw: []byte(`{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1","fieldManager":"kubectl"}`)},
	}
	now.TypeMeta = kind
	var err error
	if r.Object.Raw, err = json.Marshal(now); err != nil {
		return nil, fmt.Errorf("encoding a Service: %w", err)
	}
	if before != nil {
		before.TypeMeta, r.Operation = kind, admissionv1.Update
		if r.OldObject.Raw, err = json.Marshal(before); err != nil {
			return nil, fmt.Errorf("encoding a Service: %w", err)
		}
	}
	b, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: r,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding a review: %w", err)
	}
	return b, nil
}

// ask asks once, and fails unless the Service is allowed.
func (h *webhook) ask(ctx context.Context, review []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(review))
	if err != nil {
		return fmt.Errorf("asking the webhook: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking the webhook: %w", err)
	}
	defer resp.Body.Close()
	var answer admissionv1.AdmissionReview
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("asking the webhook: %s: %w", resp.Status, err)
	}
	if answer.Response == nil || !answer.Response.Allowed {
		return fmt.Errorf("asking the webhook: %+v", answer.Response)
	}
	return nil
}

// askAtRate asks at a fixed rate, whether or not earlier answers have come, and returns how long each answer took, in milliseconds,
// from when the question was due.
func (h *webhook) askAtRate(ctx context.Context, reviews [][]byte, rate int, period time.Duration) ([]float64, error) {
	var mu sync.Mutex // protects latencies
	var latencies []float64
	everybody, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sent := 0; ; {
		for ; ; sent++ {
			due := began.Add(time.Duration(sent) * time.Second / time.Duration(rate))
			if time.Now().Before(due) || due.Sub(began) >= period {
				break
			}
			everybody.Go(func() error {
				err := h.ask(ctx, reviews[sent%len(reviews)])
				mu.Lock()
				defer mu.Unlock()
				latencies = append(latencies, milliseconds(time.Since(due)))
				return err
			})
		}
		if time.Since(began) >= period || ctx.Err() != nil {
			return latencies, everybody.Wait()
		}
		<-tick.C
	}
}
