// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	admissioninformers "k8s.io/client-go/informers/admissionregistration/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// selfManaged is the source of ModeSelf. The replicas need no leader: each does what is due, and the Secret's resource version
// decides which write wins.
type selfManaged struct {
	*Options

	dnsNames []string
}

func newSelfManaged(o *Options) *selfManaged {
	return &selfManaged{Options: o, dnsNames: []string{o.host(), o.host() + ".cluster.local"}}
}

// sync writes what is due. It publishes the CA before it serves a certificate that the CA has signed.
func (s *selfManaged) sync(ctx context.Context, served *tls.Certificate) (*tls.Certificate, time.Time, error) {
	config, err := s.webhookConfiguration(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	id, err := s.converge(ctx, config)
	if err != nil {
		return nil, time.Time{}, err
	}
	err = s.publish(ctx, config, id.bundle())
	if err != nil && served != nil && time.Now().Before(served.Leaf.NotAfter) {
		return nil, id.due(), err
	}
	return id.leaf, id.due(), err // serving nothing would be no better
}

// informers watch the Secret and the webhook configuration, whose caBundle others may overwrite.
func (s *selfManaged) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{
		secretInformer(s.Client, s.Namespace, s.SecretName),
		admissioninformers.NewFilteredMutatingWebhookConfigurationInformer(s.Client, 0, nil, only(s.WebhookConfiguration)),
	}
}

// converge returns the content of the Secret after everything that is due has been written, by this replica or another.
func (s *selfManaged) converge(ctx context.Context, config *admissionv1.MutatingWebhookConfiguration) (*identity, error) {
	// Up to three changes can be due: everything, then an authority, then a leaf. The other rounds are for lost races.
	const rounds = 8
	for range rounds {
		secrets := s.Client.CoreV1().Secrets(s.Namespace)
		secret, err := secrets.Get(ctx, s.SecretName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			secret = nil
		} else if err != nil {
			return nil, fmt.Errorf("reading secret %s/%s: %w", s.Namespace, s.SecretName, err)
		}
		current, next, reason, err := s.plan(secret, config, time.Now())
		if err != nil {
			return nil, err
		}
		if next == nil {
			return current, nil
		}
		err = s.write(ctx, secret, next)
		switch {
		case err == nil:
			s.Log.Info("Renewed the webhook's certificate", "secret", s.SecretName, "reason", reason,
				"notAfter", next.leaf.Leaf.NotAfter, "authorityNotAfter", next.authorities[0].NotAfter)
		case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
			s.Log.V(1).Info("Another replica has written the webhook's certificate first", "secret", s.SecretName)
		default:
			return nil, fmt.Errorf("writing secret %s/%s: %w", s.Namespace, s.SecretName, err)
		}
	}
	return nil, fmt.Errorf("writing secret %s/%s: it changed each of %d times", s.Namespace, s.SecretName, rounds)
}

// plan returns what secret contains. If that has to be replaced, it also returns the new content and the reason.
func (s *selfManaged) plan(
	secret *corev1.Secret, config *admissionv1.MutatingWebhookConfiguration, now time.Time,
) (current, next *identity, reason string, err error) {
	if secret == nil {
		next, err = newIdentity(trusted(config), s.dnsNames, now)
		return nil, next, "the secret does not exist", err
	}
	current, problem := parseIdentity(secret.Data, s.dnsNames, now)
	if problem != nil {
		next, err = newIdentity(trusted(config), s.dnsNames, now)
		return nil, next, problem.Error(), err
	}
	next, reason, err = current.next(s.dnsNames, published(config, current.bundle()), now)
	return current, next, reason, err
}

// write creates the Secret if secret is nil, and otherwise updates it.
func (s *selfManaged) write(ctx context.Context, secret *corev1.Secret, id *identity) error {
	data, err := id.data()
	if err != nil {
		return err
	}
	secrets := s.Client.CoreV1().Secrets(s.Namespace)
	if secret != nil {
		secret = secret.DeepCopy()
		secret.Data = data
		_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
		return err // converge distinguishes conflicts from failures, and wraps failures
	}
	owners, err := owners(ctx, s.Client, s.Namespace, s.Service)
	if err != nil {
		return err
	}
	_, err = secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: s.SecretName, Namespace: s.Namespace, OwnerReferences: owners,
			Labels: map[string]string{"app.kubernetes.io/managed-by": "scale-to-zero"},
		},
		Type: corev1.SecretTypeTLS,
		Data: data,
	}, metav1.CreateOptions{})
	return err
}

// owners makes a Service own a Secret, so that the Secret is deleted when the chart is uninstalled: the chart does not know it.
func owners(ctx context.Context, c kubernetes.Interface, namespace, name string) ([]metav1.OwnerReference, error) {
	service, err := c.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading service %s/%s: %w", namespace, name, err)
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: service.Name, UID: service.UID}}, nil
}

// webhookConfiguration returns the webhook configuration, or nil if it does not exist.
func (s *selfManaged) webhookConfiguration(ctx context.Context) (*admissionv1.MutatingWebhookConfiguration, error) {
	config, err := s.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().
		Get(ctx, s.WebhookConfiguration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil // there is nothing to publish to, which is not a failure
	}
	if err != nil {
		return nil, fmt.Errorf("reading webhook configuration %s: %w", s.WebhookConfiguration, err)
	}
	return config, nil
}

// published reports whether every webhook of config has bundle as its CA. It returns true without a config.
func published(config *admissionv1.MutatingWebhookConfiguration, bundle []byte) bool {
	if config == nil {
		return true
	}
	for i := range config.Webhooks {
		if !bytes.Equal(config.Webhooks[i].ClientConfig.CABundle, bundle) {
			return false
		}
	}
	return true
}

// trusted returns the caBundle that the API server has at present.
func trusted(config *admissionv1.MutatingWebhookConfiguration) []byte {
	if config == nil || len(config.Webhooks) == 0 {
		return nil
	}
	return config.Webhooks[0].ClientConfig.CABundle
}

// publish writes bundle to every webhook of config. It changes no other field. It fails if config has changed since it was read.
func (s *selfManaged) publish(ctx context.Context, config *admissionv1.MutatingWebhookConfiguration, bundle []byte) error {
	if published(config, bundle) {
		return nil
	}
	type clientConfig struct {
		CABundle []byte `json:"caBundle"`
	}
	type webhook struct {
		Name         string       `json:"name"` // the merge key of the list
		ClientConfig clientConfig `json:"clientConfig"`
	}
	webhooks := make([]webhook, 0, len(config.Webhooks))
	for i := range config.Webhooks {
		webhooks = append(webhooks, webhook{config.Webhooks[i].Name, clientConfig{bundle}})
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": config.ResourceVersion},
		"webhooks": webhooks,
	})
	if err != nil {
		return fmt.Errorf("encoding the patch of webhook configuration %s: %w", config.Name, err)
	}
	_, err = s.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().
		Patch(ctx, config.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patching the caBundle of webhook configuration %s: %w", config.Name, err)
	}
	s.Log.Info("Published the webhook's CA to the API server", "configuration", config.Name)
	return nil
}
