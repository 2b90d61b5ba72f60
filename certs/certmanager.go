// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// certManager is the source of ModeCertManager. It reads the Secret and writes nothing.
type certManager struct {
	*Options

	told string // what is wrong with the Secret, as last logged; empty while nothing is
}

// sync takes over what the Secret holds, if it can be served. If not, time alone mends nothing: a log line says once what
// is wrong, and the watch tells of the next change.
func (c *certManager) sync(ctx context.Context, served *tls.Certificate) (*tls.Certificate, time.Time, error) {
	never := time.Now().Add(c.Resync)
	secret, err := c.Client.CoreV1().Secrets(c.Namespace).Get(ctx, c.SecretName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if c.news("the secret does not exist") {
			c.Log.Info("Waiting for cert-manager to write the webhook's certificate; `kubectl describe certificate` says what it is waiting for",
				"secret", c.Namespace+"/"+c.SecretName, "serving", describe(served))
		}
		return nil, never, nil
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("reading secret %s/%s: %w", c.Namespace, c.SecretName, err)
	}
	leaf, err := parseIssued(secret.Data, c.host(), time.Now())
	if err != nil {
		if c.news(err.Error()) {
			c.Log.Error(err, "The webhook's certificate cannot be used, waiting for another one",
				"secret", c.Namespace+"/"+c.SecretName, "serving", describe(served))
		}
		return nil, never, nil
	}
	c.told = ""
	if served == nil || !served.Leaf.Equal(leaf.Leaf) {
		c.Log.Info("Serving the webhook's certificate of cert-manager",
			"secret", c.Namespace+"/"+c.SecretName, "notAfter", leaf.Leaf.NotAfter)
	}
	return leaf, leaf.Leaf.NotAfter, nil
}

// news says that problem has not been told yet, and takes it as told.
func (c *certManager) news(problem string) bool {
	known := c.told == problem
	c.told = problem
	return !known
}

// describe is what a log line says of the certificate that is served meanwhile.
func describe(served *tls.Certificate) string {
	if served == nil {
		return "nothing"
	}
	return "the one before, which ends " + served.Leaf.NotAfter.Format(time.RFC3339)
}

func (c *certManager) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{secretInformer(c.Options)}
}

// parseIssued returns the certificate in a Secret of cert-manager's, if an API server that has the Secret's CA for its
// caBundle accepts it for host now. The error names the key that is wrong.
func parseIssued(data map[string][]byte, host string, now time.Time) (*tls.Certificate, error) {
	for _, key := range []string{keyLeaf, keyLeafKey, keyBundle} {
		if len(bytes.TrimSpace(data[key])) == 0 {
			return nil, fmt.Errorf("%s is missing or empty", key)
		}
	}
	pair, err := tls.X509KeyPair(data[keyLeaf], data[keyLeafKey])
	if err != nil {
		return nil, fmt.Errorf("reading %s and %s: %w", keyLeaf, keyLeafKey, err)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data[keyBundle]) {
		return nil, errors.New(keyBundle + " holds no certificate")
	}
	for _, der := range pair.Certificate[1:] {
		intermediate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading the chain in %s: %w", keyLeaf, err)
		}
		intermediates.AddCert(intermediate)
	}
	if end := pair.Leaf.NotAfter; !now.Before(end) {
		return nil, fmt.Errorf("%s expired at %s", keyLeaf, end.Format(time.RFC3339))
	}
	if begin := pair.Leaf.NotBefore; now.Before(begin) && !now.Add(skew).Before(begin) {
		now = begin // it was made a moment ago, by a clock that is ahead of ours
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: host, CurrentTime: now})
	if err != nil {
		return nil, fmt.Errorf("verifying %s with %s: %w", keyLeaf, keyBundle, err)
	}
	return &pair, nil
}
