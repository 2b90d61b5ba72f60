// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls/mtlstest"
)

func certificateSecret(name string, f mtls.Files) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ours", Name: name},
		Data:       map[string][]byte{"tls.crt": f.Certificate, "tls.key": f.Key, "ca.crt": f.Authorities},
	}
}

// TestCertificateIsFollowed: the interceptor uses its Secret's certificate as soon as there is one and whenever it changes, and goes on
// with it when what replaces it is broken or gone.
func TestCertificateIsFollowed(t *testing.T) {
	ours := mtlstest.NewAuthority(t)
	of := func(life time.Duration) mtls.Files {
		expires := time.Now().Add(life).Truncate(time.Second)
		return ours.Issue(mtlstest.Leaf{Names: []string{string(mtls.Interceptor)}, Server: true, Expires: expires})
	}
	clientset, store := fake.NewClientset(), mtls.New(nil)
	c := NewForClients(clientset, nil, Options{Namespace: "ours", Secret: "server-cert", TLS: store, Log: logr.Discard()})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.watchCertificate(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	secrets := clientset.CoreV1().Secrets("ours")
	has := func(life time.Duration) {
		t.Helper()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(within); ; <-tick.C {
			left := time.Until(store.Expires())
			if (left - life).Abs() < time.Minute {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the certificate has %s left, want %s", left, life)
			}
		}
	}
	must := func(_ runtime.Object, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(secrets.Create(ctx, certificateSecret("server-cert", mtls.Files{}), metav1.CreateOptions{})) // the chart, or somebody, is early
	must(secrets.Update(ctx, certificateSecret("server-cert", of(time.Hour)), metav1.UpdateOptions{}))
	<-store.Ready()
	has(time.Hour)
	must(secrets.Update(ctx, certificateSecret("server-cert", of(2*time.Hour)), metav1.UpdateOptions{}))
	has(2 * time.Hour)
	must(secrets.Update(ctx, certificateSecret("server-cert", mtls.Files{Certificate: []byte("x")}), metav1.UpdateOptions{}))
	if err := secrets.Delete(ctx, "server-cert", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	must(secrets.Create(ctx, certificateSecret("another", of(5*time.Hour)), metav1.CreateOptions{}))
	has(2 * time.Hour)
	must(secrets.Create(ctx, certificateSecret("server-cert", of(3*time.Hour)), metav1.CreateOptions{}))
	has(3 * time.Hour)
}
