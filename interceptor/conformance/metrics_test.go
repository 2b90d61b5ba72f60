// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls/mtlstest"
	"github.com/scale-to-zero/scale-to-zero/interceptor/metrics"
)

// tokens are what the API server says about each token.
type tokens map[string]metrics.Verdict

func (ts tokens) Review(_ context.Context, token string) (metrics.Verdict, error) {
	return ts[token], nil
}

// scraper is Prometheus, with the CA of the interceptors' Secret and their Service's name.
func scraper(t *testing.T, a *mtlstest.Authority) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.Bundle())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: scalerHost}, DisableKeepAlives: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func scrapeAs(t *testing.T, c *http.Client, url, token string) (int, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

// TestMetricsAreGuarded: with authentication, /metrics is served with TLS alone, to whom the API server allows it, with each new
// certificate; probes need no token, and the port shows nothing else.
func TestMetricsAreGuarded(t *testing.T) {
	before, after := mtlstest.NewAuthority(t), mtlstest.NewAuthority(t)
	store, address := mtls.New(nil), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	n := start(t, "a", &addresses{}, func(o *interceptor.Options) {
		o.TLS, o.MetricsAddress = store, address
		o.Scrapers = tokens{"good": metrics.Allowed, "weak": metrics.Forbidden}
	})
	n.set(unpublished(service(freePort(t), api.ProtocolAuto)))
	n.synced()
	n.applied()
	if code := n.status("/healthz"); code != http.StatusOK {
		t.Errorf("without a certificate, the liveness probe gets %d", code)
	}
	if code, _, err := scrapeAs(t, scraper(t, before), "https://"+address+"/metrics", "good"); err == nil {
		t.Errorf("without a certificate, a scrape gets %d", code)
	}
	for i, a := range []*mtlstest.Authority{before, after} {
		if err := store.Set(serverFiles(a)); err != nil {
			t.Fatal(err)
		}
		n.waitReady()
		for token, want := range map[string]int{"": 401, "bad": 401, "weak": 403, "good": 200} {
			code, body, err := scrapeAs(t, scraper(t, a), "https://"+address+"/metrics", token)
			if err != nil || code != want || strings.Contains(body, "scale_to_zero_") != (want == 200) {
				t.Errorf("certificate %d: token %q gets %d, %v: %.80s", i+1, token, code, err, body)
			}
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 404} {
		if code := n.status(path); code != want {
			t.Errorf("%s on the port of probes: %d, want %d", path, code, want)
		}
	}
	for _, path := range []string{"/", "/healthz", "/debug/pprof/", "/metrics/x"} {
		if code, _, err := scrapeAs(t, scraper(t, after), "https://"+address+path, "good"); err != nil || code != http.StatusNotFound {
			t.Errorf("%s on the port of metrics: %d, %v", path, code, err)
		}
	}
	if code, body, err := scrapeAs(t, http.DefaultClient, "http://"+address+"/metrics", "good"); err == nil && code == http.StatusOK {
		t.Errorf("plain HTTP shows %.80s", body)
	}
}

// TestMetricsNeedTLS: a token is never asked for in plain text.
func TestMetricsNeedTLS(t *testing.T) {
	err := interceptor.Run(t.Context(), interceptor.Options{Cluster: newFakeCluster(), Scrapers: tokens{}})
	if err == nil || !strings.Contains(err.Error(), "only with TLS") {
		t.Errorf("got %v", err)
	}
}
