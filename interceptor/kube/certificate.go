// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
)

// watchCertificate uses the certificate in the interceptors' Secret, and each one that replaces it, until ctx is done. A Secret that is
// mounted as a file would follow a minute later, and a pod would not start without it. A Role lets us list and watch this one Secret.
func (c *Cluster) watchCertificate(ctx context.Context) {
	secrets := c.client.CoreV1().Secrets(c.options.Namespace)
	reflector := cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(named(c.options.Secret, secrets.List, secrets.Watch), c.client), &corev1.Secret{},
		&certificate{store: c.options.TLS, name: c.options.Secret, log: c.options.Log}, cache.ReflectorOptions{Name: "certificate"})
	reflector.RunWithContext(ctx)
}

// certificate is where the reflector puts the Secret.
type certificate struct {
	store *mtls.Store
	name  string
	log   logr.Logger
}

// Add implements cache.ReflectorStore.
func (s *certificate) Add(obj any) error { return s.Update(obj) }

// Update implements cache.ReflectorStore.
func (s *certificate) Update(obj any) error {
	secret, ok := obj.(*corev1.Secret)
	if !ok || secret.Name != s.name {
		return nil
	}
	err := s.store.Set(mtls.Files{
		Certificate: secret.Data[corev1.TLSCertKey], Key: secret.Data[corev1.TLSPrivateKeyKey],
		Authorities: secret.Data[corev1.ServiceAccountRootCAKey],
	})
	if err != nil {
		s.log.Error(err, "The interceptors' certificate cannot be used", "secret", s.name, "notAfterOfTheUsedOne", s.store.Expires())
		return nil
	}
	s.log.Info("Using the interceptors' certificate", "secret", s.name, "notAfter", s.store.Expires())
	return nil
}

// Delete implements cache.ReflectorStore. The certificate stays in use: somebody writes the Secret again.
func (s *certificate) Delete(any) error {
	s.log.Info("The Secret of the interceptors' certificate is gone", "secret", s.name, "notAfter", s.store.Expires())
	return nil
}

// Replace implements cache.ReflectorStore.
func (s *certificate) Replace(list []any, _ string) error {
	for _, obj := range list {
		_ = s.Update(obj) // never fails
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *certificate) Resync() error { return nil }
