// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		t.Fatalf("%s: no PEM", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestPKI(t *testing.T) {
	c := testCluster(t)
	if err := c.ensurePKI(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		ca, user, group string
		server          []string // its host names
	}{
		"apiserver":          {ca: "ca", user: "kube-apiserver", server: []string{"kubernetes.default.svc", nodeIP, serviceIP, "127.0.0.1"}},
		"kubelet-server":     {ca: "ca", user: "system:node:node1", group: "system:nodes", server: []string{nodeIP, "node1"}},
		"admin":              {ca: "ca", user: "kubernetes-admin", group: "system:masters"},
		"kubelet":            {ca: "ca", user: "system:node:node1", group: "system:nodes"},
		"coredns":            {ca: "ca", user: "coredns"},
		"front-proxy-client": {ca: "front-proxy-ca", user: "front-proxy-client"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tls.LoadX509KeyPair(c.pki(name+".crt"), c.pki(name+".key")); err != nil {
				t.Fatal(err)
			}
			roots := x509.NewCertPool()
			roots.AddCert(certificate(t, c.pki(tc.ca+".crt")))
			cert := certificate(t, c.pki(name+".crt"))
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Error(err)
			}
			for _, host := range tc.server {
				if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
					t.Error(err)
				}
			}
			if got := strings.Join(cert.Subject.Organization, ","); cert.Subject.CommonName != tc.user || got != tc.group {
				t.Errorf("is %s of %s", cert.Subject.CommonName, got)
			}
		})
	}
}

// With one authority for both, any client could claim to be any user.
func TestFrontProxyIsItsOwnAuthority(t *testing.T) {
	dir := t.TempDir()
	if err := writePKI(dir, testCluster(t).nodes()); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, filepath.Join(dir, "front-proxy-ca.crt")))
	admin := certificate(t, filepath.Join(dir, "admin.crt"))
	if _, err := admin.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
		t.Error("the front proxy's authority vouches for the administrator")
	}
}

func TestPKIIsMadeOnce(t *testing.T) {
	c := testCluster(t)
	if err := c.ensurePKI(); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(c.pki("ca.crt"))
	if err := c.ensurePKI(); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(c.pki("ca.crt")); string(after) != string(before) {
		t.Error("the authority was replaced")
	}
	if left, _ := filepath.Glob(c.path(".pki-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestKubeconfigStaysOnLoopback(t *testing.T) {
	c := testCluster(t)
	if err := c.ensurePKI(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(c.kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Clusters []struct{ Cluster struct{ Server string } }
	}
	if err := json.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	if got := config.Clusters[0].Cluster.Server; !strings.HasPrefix(got, "https://127.0.0.1:") {
		t.Errorf("server is %s: outside of the namespace, its traffic would leave the machine", got)
	}
	if info, _ := os.Stat(c.kubeconfig()); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}
