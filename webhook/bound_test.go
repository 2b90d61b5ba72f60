// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// reviewOf returns an AdmissionReview of a Service's update of about that many bytes.
func reviewOf(t *testing.T, size int) []byte {
	t.Helper()
	raw := func(mark string) k8sruntime.RawExtension {
		b, err := json.Marshal(&corev1.Service{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", Annotations: map[string]string{
				"example.com/" + mark: strings.Repeat("a", size/2),
			}},
			Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return k8sruntime.RawExtension{Raw: b}
	}
	kind := schema.GroupVersionKind{Version: "v1", Kind: "Service"}
	b, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Kind: metav1.GroupVersionKind(kind), Operation: admissionv1.Update, Name: "web", Namespace: "shop",
			Object: raw("new"), OldObject: raw("old"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// post sends a review, and returns the status and the answer.
func post(url string, body io.Reader) (int, string, error) {
	resp, err := http.Post(url, "application/json", body)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// Forty large reviews at a time take no more memory than a few, and each is answered. Small ones do not wait for them.
func TestManyLargeReviews(t *testing.T) {
	const memory = 64 << 20
	review := reviewOf(t, 2600<<10)
	hook := &admission.Webhook{Handler: admitter[*corev1.Service]{clientgoscheme.Scheme, admitService}}
	var now, most, peak atomic.Int64
	raise := func(to *atomic.Int64, n int64) {
		for old := to.Load(); n > old && !to.CompareAndSwap(old, n); old = to.Load() {
		}
	}
	begun := make(chan struct{}, 100)
	server := httptest.NewServer(newBounds(Options{Memory: memory}).of(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > smallReview {
			raise(&most, now.Add(r.ContentLength))
			defer now.Add(-r.ContentLength)
			begun <- struct{}{}
		}
		hook.ServeHTTP(w, r)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		raise(&peak, int64(m.HeapAlloc))
	})))
	t.Cleanup(server.Close)
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			status, answer, err := post(server.URL, bytes.NewReader(review))
			if err != nil || status != http.StatusOK || !strings.Contains(answer, `"allowed":true`) {
				t.Errorf("status %d, %.200s, %v", status, answer, err)
			}
		})
	}
	<-begun
	if status, answer, err := post(server.URL, bytes.NewReader(reviewOf(t, 1000))); err != nil || status != http.StatusOK {
		t.Errorf("a small one: status %d, %.200s, %v", status, answer, err)
	}
	all.Wait()
	if got := most.Load(); got > memory/spread {
		t.Errorf("%d MiB of reviews were under way at a time", got>>20)
	}
	t.Logf("at most %d MiB of reviews at a time, and %d MiB of heap", most.Load()>>20, peak.Load()>>20)
}

// The bound on a review's size holds whether or not it is announced.
func TestHugeReview(t *testing.T) {
	server := httptest.NewServer(newBounds(Options{}).of(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		}
	})))
	t.Cleanup(server.Close)
	huge := make([]byte, maxReview+1)
	for name, body := range map[string]io.Reader{"announced": bytes.NewReader(huge), "in chunks": io.MultiReader(bytes.NewReader(huge))} {
		if status, _, err := post(server.URL, body); err == nil && status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: status %d", name, status)
		}
	}
	if status, _, err := post(server.URL, io.MultiReader(bytes.NewReader(huge[:maxReview]))); err != nil || status != http.StatusOK {
		t.Errorf("a large one in chunks: status %d, %v", status, err)
	}
}

// What spread says of a review's memory is not too little.
func TestSpread(t *testing.T) {
	review := reviewOf(t, 2600<<10)
	hook := &admission.Webhook{Handler: admitter[*corev1.Service]{clientgoscheme.Scheme, admitService}}
	ask := func() {
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(review))
		r.Header.Set("Content-Type", "application/json")
		hook.ServeHTTP(httptest.NewRecorder(), r)
	}
	ask()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ask()
	runtime.ReadMemStats(&after)
	if took := (after.TotalAlloc - before.TotalAlloc) / uint64(len(review)); took > spread {
		t.Errorf("a review allocates %d times its size, more than %d", took, spread)
	}
}
