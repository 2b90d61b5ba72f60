// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/x509"
	"time"
)

// issuedLeaf is a leaf that cert-manager issues, and that is read here.
type issuedLeaf struct {
	certManager

	leaf *Leaf
}

func newIssuedLeaf(l *Leaves, leaf *Leaf) *issuedLeaf {
	return &issuedLeaf{leaf: leaf, certManager: certManager{
		problem: "The internal certificate in Secret " + leaf.Secret + " cannot be used: ",
		Options: &Options{
			Namespace: l.Namespace, SecretName: leaf.Secret, Deployment: l.Deployment, Client: l.Client, Reader: l.Reader, Log: l.Log,
		},
	}}
}

// syncIssued passes on what cert-manager has issued.
func (l *Leaves) syncIssued(ctx context.Context) (time.Time, error) {
	now := time.Now()
	due := now.Add(l.Resync)
	for _, one := range l.issued {
		secret, err := l.secret(ctx, one.leaf.Secret)
		if err != nil {
			return time.Time{}, err
		}
		problem := "it does not exist"
		if secret != nil {
			problem = ""
			if _, err := parseIssuedFor(secret.Data, one.leaf.DNSNames[0], x509.ExtKeyUsageClientAuth, now); err != nil {
				problem = err.Error()
			}
		}
		if problem != "" {
			one.await(ctx, problem, now)
			if again := now.Add(statusInterval); again.Before(due) {
				due = again
			}
			continue
		}
		one.since, one.logged, one.emitted = time.Time{}, "", ""
		l.use(one.leaf, secret.Data)
	}
	return due, nil
}

// await reports why the Secret has no usable certificate, once for each reason.
func (i *issuedLeaf) await(ctx context.Context, problem string, now time.Time) {
	if i.since.IsZero() {
		i.since = now
	}
	status := i.status(ctx)
	why := problem + ". " + status
	if why != i.logged {
		i.logged = why
		i.Log.Info("Waiting for cert-manager to issue an internal certificate", "secret", i.Namespace+"/"+i.SecretName,
			"for", i.leaf.DNSNames[0], "problem", problem, "certManager", status)
	}
	if why != i.emitted && now.Sub(i.since) >= eventAfter {
		i.emitted = why
		i.emit(ctx, why)
	}
}
