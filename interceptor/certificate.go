// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package interceptor

import (
	"context"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/credentials"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
)

// remind is how often the log says that there is no certificate yet.
const remind = 30 * time.Second

// clientCredentials are for the connections to the peers; nil is plain text.
func clientCredentials(store *mtls.Store) credentials.TransportCredentials {
	if store == nil {
		return nil
	}
	return credentials.NewTLS(store.Client())
}

// awaitCertificate waits until there is a certificate.
func awaitCertificate(ctx context.Context, store *mtls.Store, log logr.Logger) error {
	if store == nil {
		return nil
	}
	soon := time.NewTimer(time.Second) // in an installation it usually exists by then
	defer soon.Stop()
	for {
		select {
		case <-store.Ready():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-soon.C:
			log.Info("Not ready: waiting for the certificate of the interceptors, which the controllers or cert-manager write")
			soon.Reset(remind)
		}
	}
}
