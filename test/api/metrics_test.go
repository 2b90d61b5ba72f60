// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	kubeside "github.com/scale-to-zero/scale-to-zero/interceptor/kube"
	"github.com/scale-to-zero/scale-to-zero/interceptor/metrics"
)

// tokenOf returns a token of an account, for these audiences.
func tokenOf(t *testing.T, account *corev1.ServiceAccount, audiences ...string) string {
	t.Helper()
	c, err := kubernetes.NewForConfig(env.Config)
	if err != nil {
		t.Fatal(err)
	}
	spec := authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: new(int64(600))}
	request := &authenticationv1.TokenRequest{Spec: spec}
	request, err = c.CoreV1().ServiceAccounts(account.Namespace).CreateToken(t.Context(), account.Name, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// signedAgain returns a token with some claims changed, as the API server itself would sign it.
func signedAgain(t *testing.T, token string, claims map[string]any) string {
	t.Helper()
	parts := strings.Split(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	maps.Copy(all, claims)
	if text, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(env.ControlPlane.GetAPIServer().CertDir, "sa-signer.key"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(file)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("the API server signs with a %T", parsed)
	}
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(text)
	digest := sha256.Sum256([]byte(signed))
	x, y, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// TestMetricsAuthentication: the API server says who may read metrics, asked with the rights that the chart gives.
func TestMetricsAuthentication(t *testing.T) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "monitoring-"}}
	create(t, ns)
	account := func(name, role string) *corev1.ServiceAccount {
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: name}}
		create(t, sa)
		if role != "" {
			create(t, &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: ns.Name + "-" + name},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns.Name, Name: name}},
			})
		}
		return sa
	}
	create(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: ns.Name + "-posts"}, Rules: []rbacv1.PolicyRule{
		{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"post"}}, {NonResourceURLs: []string{"/metrics/x"}, Verbs: []string{"get"}},
	}})
	reader, nobody := account("prometheus", "scale-to-zero-metrics-reader"), account("nobody", "")
	other, deleted := account("other", ns.Name+"-posts"), account("deleted", "scale-to-zero-metrics-reader")
	good, gone := tokenOf(t, reader), tokenOf(t, deleted)
	if err := kube.Delete(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour)
	begin := map[string]any{"iat": past.Add(-time.Hour).Unix(), "nbf": past.Add(-time.Hour).Unix()}
	expired := signedAgain(t, good, map[string]any{"iat": begin["iat"], "nbf": begin["nbf"], "exp": past.Unix()})
	for _, as := range map[string]string{"controller": controllerAccount, "interceptor": interceptorAccount} {
		for name, tc := range map[string]struct {
			token string
			want  int
		}{
			"with the right":             {good, http.StatusOK},
			"signed again":               {signedAgain(t, good, begin), http.StatusOK}, // so expired is refused only because it has expired
			"without a right":            {tokenOf(t, nobody), http.StatusForbidden},
			"with other rights":          {tokenOf(t, other), http.StatusForbidden},
			"none":                       {"", http.StatusUnauthorized},
			"expired":                    {expired, http.StatusUnauthorized},
			"of a deleted account":       {gone, http.StatusUnauthorized},
			"for somebody else":          {tokenOf(t, reader, "vault"), http.StatusUnauthorized},
			"with a changed signature":   {good[:len(good)-8] + "AAAAAAAA", http.StatusUnauthorized},
			"no token of the API server": {"eyJhbGciOiJub25lIn0.e30.", http.StatusUnauthorized},
		} {
			t.Run(as+" "+name, func(t *testing.T) { scrapeWith(t, as, tc.token, tc.want) })
		}
	}
	// Without the chart's right to ask, nobody is let in.
	scrapeWith(t, "system:serviceaccount:scale-to-zero:somebody", good, http.StatusServiceUnavailable)
}

// scrapeWith scrapes what runs under an account, and checks the status.
func scrapeWith(t *testing.T, server, token string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("a scrape gets %d", want), func() error { // roles take effect a moment later
		scrapers, err := kubeside.NewScrapers(as(server))
		if err != nil {
			return err
		}
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		metrics.Guarded(http.NotFoundHandler(), scrapers, logr.Discard()).ServeHTTP(w, r)
		if got := w.Code; got != want && (got != http.StatusNotFound || want != http.StatusOK) {
			return fmt.Errorf("got %d: %s", got, w.Body)
		}
		return nil
	})
}
