// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// The secret stores of clouds, none of which this build of KEDA can read.

package resolver

import (
	"context"
	"errors"
	"net/url"

	"github.com/go-logr/logr"
	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"github.com/kedacore/keda/v2/pkg/scalers/authentication"
	corev1 "k8s.io/api/core/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var errLeftOut = errors.New("this build of KEDA has no clients of secret stores")

// DefaultVaultKubernetesAuthTokenFile is the default of a flag of the operator.
const DefaultVaultKubernetesAuthTokenFile = "/var/run/secrets/keda-vault/token"

type leftOut struct{}

func (leftOut) Stop() {}

type HashicorpVaultHandler struct{ leftOut }

func NewHashicorpVaultHandler(*kedav1alpha1.HashiCorpVault, *authentication.AuthClientSet, string) HashicorpVaultHandler {
	return HashicorpVaultHandler{}
}

func (HashicorpVaultHandler) Initialize(logr.Logger) error { return errLeftOut }

func (HashicorpVaultHandler) ResolveSecrets([]kedav1alpha1.VaultSecret) ([]kedav1alpha1.VaultSecret, error) {
	return nil, errLeftOut
}

// vaultAddressesEqual is what validates the settings of an operator that is given any for Vault.
func vaultAddressesEqual(a, b string) bool {
	first, err := url.Parse(a)
	if err != nil || first.Host == "" || first.User != nil {
		return false
	}
	second, err := url.Parse(b)
	return err == nil && first.Scheme == second.Scheme && first.Host == second.Host
}

type AzureKeyVaultHandler struct{ leftOut }

func NewAzureKeyVaultHandler(*kedav1alpha1.AzureKeyVault) AzureKeyVaultHandler {
	return AzureKeyVaultHandler{}
}

func (AzureKeyVaultHandler) Initialize(context.Context, client.Client, logr.Logger, string, corev1listers.SecretLister) error {
	return errLeftOut
}

func (AzureKeyVaultHandler) Read(context.Context, string, string) (string, error) {
	return "", errLeftOut
}

type GCPSecretManagerHandler struct{ leftOut }

func NewGCPSecretManagerHandler(*kedav1alpha1.GCPSecretManager) GCPSecretManagerHandler {
	return GCPSecretManagerHandler{}
}

func (GCPSecretManagerHandler) Initialize(context.Context, client.Client, logr.Logger, string, corev1listers.SecretLister) error {
	return errLeftOut
}

func (GCPSecretManagerHandler) Read(context.Context, string, string) (string, error) {
	return "", errLeftOut
}

type AwsSecretManagerHandler struct{ leftOut }

func NewAwsSecretManagerHandler(*kedav1alpha1.AwsSecretManager) AwsSecretManagerHandler {
	return AwsSecretManagerHandler{}
}

func (AwsSecretManagerHandler) Initialize(context.Context, client.Client, logr.Logger, string, corev1listers.SecretLister,
	*corev1.PodSpec,
) error {
	return errLeftOut
}

func (AwsSecretManagerHandler) Read(context.Context, logr.Logger, string, string, string, string) (string, error) {
	return "", errLeftOut
}
