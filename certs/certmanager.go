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

// certManager is the source of ModeCertManager. It only reads the Secret; it writes only events.
type certManager struct {
	*Options

	// problem is how an event about the Secret begins. Empty says that the webhook's certificate cannot be served.
	problem string

	// These are empty while the Secret has a usable certificate.
	since           time.Time // when it first had none
	logged, emitted string    // the reason in the last log line and in the last event
}

const (
	// statusInterval is how often cert-manager's progress is read while the Secret has no usable certificate. The watch reports only
	// changes of the Secret.
	statusInterval = 10 * time.Second
	// eventAfter is how long the certificate may be missing before an event says so. During an installation that is normal.
	eventAfter = 30 * time.Second
)

// sync serves the certificate in the Secret. If that is not usable, a log line and later an event say why, once for each reason.
func (c *certManager) sync(ctx context.Context, served *tls.Certificate) (*tls.Certificate, time.Time, error) {
	secret, err := c.Client.CoreV1().Secrets(c.Namespace).Get(ctx, c.SecretName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return c.await(ctx, served, nil)
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("reading secret %s/%s: %w", c.Namespace, c.SecretName, err)
	}
	leaf, err := parseIssued(secret.Data, c.host(), time.Now())
	if err != nil {
		return c.await(ctx, served, err)
	}
	c.since, c.logged, c.emitted = time.Time{}, "", ""
	if served == nil || !served.Leaf.Equal(leaf.Leaf) {
		c.Log.Info("Serving the webhook's certificate from cert-manager",
			"secret", c.Namespace+"/"+c.SecretName, "notAfter", leaf.Leaf.NotAfter)
	}
	return leaf, leaf.Leaf.NotAfter, nil
}

// await reports why the Secret has no usable certificate, and makes the caller call sync again soon. problem is nil if there is no
// Secret.
func (c *certManager) await(ctx context.Context, served *tls.Certificate, problem error) (*tls.Certificate, time.Time, error) {
	now := time.Now()
	if c.since.IsZero() {
		c.since = now
	}
	status, what := c.status(ctx), "it does not exist"
	if problem != nil {
		what = problem.Error()
	}
	why := what + ". " + status
	if why != c.logged {
		c.logged = why
		about := []any{"secret", c.Namespace + "/" + c.SecretName, "certManager", status, "serving", describe(served)}
		if problem == nil {
			c.Log.Info("Waiting for cert-manager to issue the webhook's certificate", about...)
		} else {
			c.Log.Error(problem, "The webhook's certificate cannot be used; waiting for cert-manager to issue another", about...)
		}
	}
	if why != c.emitted && now.Sub(c.since) >= eventAfter {
		c.emitted = why
		c.emit(ctx, why)
	}
	return nil, now.Add(statusInterval), nil
}

// describe says what is served meanwhile.
func describe(served *tls.Certificate) string {
	if served == nil {
		return "nothing"
	}
	return "the previous one, which expires at " + served.Leaf.NotAfter.Format(time.RFC3339)
}

func (c *certManager) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{secretInformer(c.Client, c.Namespace, c.SecretName)}
}

// parseIssued returns the certificate in a Secret of cert-manager, if an API server whose caBundle is the Secret's CA accepts it now
// for host. The error names the key with the problem.
func parseIssued(data map[string][]byte, host string, now time.Time) (*tls.Certificate, error) {
	return parseIssuedFor(data, host, x509.ExtKeyUsageServerAuth, now)
}

// parseIssuedFor is parseIssued for another use than a server's.
func parseIssuedFor(data map[string][]byte, host string, usage x509.ExtKeyUsage, now time.Time) (*tls.Certificate, error) {
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
		return nil, errors.New(keyBundle + " contains no certificate")
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
		now = begin // the certificate was issued a moment ago, by a clock that is ahead of ours
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, DNSName: host, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return nil, fmt.Errorf("verifying %s with %s: %w", keyLeaf, keyBundle, err)
	}
	return &pair, nil
}
