// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"fmt"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Remove deletes the cert-manager Certificates with these names, and the Secrets with the same names, if they exist. cert-manager
// does not delete a Secret with its Certificate. Remove deletes all Certificates before the first Secret; otherwise cert-manager
// would create the Secrets again.
func Remove(ctx context.Context, c client.Client, namespace string, names []string) error {
	for _, name := range names {
		certificate := &certmanagerv1.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
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
