// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Remove deletes cert-manager's Certificates of these names and the Secrets of the same names, those that are there:
// cert-manager does not delete a Secret with its Certificate. All Certificates go first, or else it would write the
// Secrets anew.
func Remove(ctx context.Context, c client.Client, namespace string, names []string) error {
	for _, name := range names {
		certificate := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "cert-manager.io/v1", "kind": "Certificate",
			"metadata": map[string]any{"namespace": namespace, "name": name},
		}}
		if err := c.Delete(ctx, certificate); client.IgnoreNotFound(err) != nil && !meta.IsNoMatchError(err) {
			return fmt.Errorf("deleting certificate %s/%s: %w", namespace, name, err)
		}
	}
	for _, name := range names {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		if err := c.Delete(ctx, secret); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting secret %s/%s: %w", namespace, name, err)
		}
	}
	return nil
}
