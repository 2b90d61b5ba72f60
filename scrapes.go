// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"net/http"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/scale-to-zero/scale-to-zero/certs"
	"github.com/scale-to-zero/scale-to-zero/interceptor/kube"
	"github.com/scale-to-zero/scale-to-zero/interceptor/metrics"
)

const metricsAuthenticationUsage = "serve /metrics with TLS, and only to accounts that may get the path /metrics; " +
	"this takes the rights to create TokenReviews and SubjectAccessReviews"

// metrics returns how the controllers serve /metrics.
func (f *controllerFlags) metrics(certificate *certs.Manager) metricsserver.Options {
	o := metricsserver.Options{BindAddress: f.metricsAddress}
	if !f.metricsAuthentication {
		return o
	}
	o.SecureServing = true
	o.TLSOpts = []func(*tls.Config){func(c *tls.Config) {
		c.GetCertificate, c.MinVersion, c.NextProtos = certificate.GetCertificate, tls.VersionTLS13, []string{"http/1.1"}
	}}
	o.FilterProvider = func(config *rest.Config, _ *http.Client) (metricsserver.Filter, error) {
		scrapers, err := kube.NewScrapers(config)
		if err != nil {
			return nil, err
		}
		return func(log logr.Logger, h http.Handler) (http.Handler, error) {
			return metrics.Guarded(h, scrapers, log), nil
		}, nil
	}
	return o
}
