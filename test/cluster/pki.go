// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certificates are valid as long as a cluster may run; `down` deletes them.
const certificateLifetime = 10 * 365 * 24 * time.Hour

// An authority signs certificates. There are two: the second signs the certificate with which the API server passes
// requests on to an aggregated API (the metrics adapter). With a single one, any client could impersonate any user.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// A subject is the holder of a certificate. With addresses or names it can be a server too.
type subject struct {
	file  string
	user  string
	group string
	names []string
	ips   []string
}

// ensurePKI makes all keys, certificates and kubeconfigs or none: they belong together, so one rename publishes them all.
func (c *cluster) ensurePKI() error {
	if exists(c.path("pki")) {
		return nil
	}
	dir, err := os.MkdirTemp(c.path(), ".pki-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := writePKI(dir, c.nodes()); err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	return os.Rename(dir, c.path("pki"))
}

func writePKI(dir string, nodes []node) error {
	ca, err := newAuthority(dir, "ca")
	if err != nil {
		return err
	}
	front, err := newAuthority(dir, "front-proxy-ca")
	if err != nil {
		return err
	}
	for _, s := range []subject{
		{file: "apiserver", user: "kube-apiserver", names: apiServerNames(), ips: []string{nodeIP, serviceIP, "127.0.0.1"}},
		{file: "apiserver-kubelet-client", user: "kube-apiserver-kubelet-client", group: "system:masters"},
	} {
		if _, _, err := ca.issue(dir, s); err != nil {
			return err
		}
	}
	if _, _, err := front.issue(dir, subject{file: "front-proxy-client", user: "front-proxy-client"}); err != nil {
		return err
	}
	for _, s := range []subject{
		{file: "kube-controller-manager", user: "system:kube-controller-manager"},
		{file: "kube-scheduler", user: "system:kube-scheduler"},
		{file: "coredns", user: "coredns"},
	} {
		if err := ca.writeKubeconfig(dir, s, apiServer); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if err := ca.writeNode(dir, n); err != nil {
			return err
		}
	}
	return writeServiceAccountKey(dir)
}

// writeNode makes what a node needs. Its administrator's kubeconfig is for commands in its namespace.
func (a *authority) writeNode(dir string, n node) error {
	user := "system:node:" + n.name()
	if _, _, err := a.issue(dir, subject{
		file: n.named("kubelet-server"), user: user, group: "system:nodes", names: []string{n.name(), "localhost"},
		ips: []string{n.ip(), "127.0.0.1"},
	}); err != nil {
		return err
	}
	for _, s := range []subject{
		{file: n.named("kubelet"), user: user, group: "system:nodes"},
		{file: n.named("kube-proxy"), user: "system:kube-proxy"}, // the API server itself binds it to system:node-proxier
		{file: n.named("admin"), user: "kubernetes-admin", group: "system:masters"},
	} {
		if err := a.writeKubeconfig(dir, s, n.apiServer()); err != nil {
			return err
		}
	}
	return nil
}

func apiServerNames() []string {
	return []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"}
}

func newAuthority(dir, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(pkix.Name{CommonName: name})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &authority{cert: cert, key: key, pem: encode("CERTIFICATE", der)}
	_, err = writeKeyPair(dir, name, a.pem, key)
	return a, err
}

func newTemplate(name pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: name,
		NotBefore: time.Now().Add(-time.Hour), // the clock may be set back
		NotAfter:  time.Now().Add(certificateLifetime),
	}, nil
}

func (a *authority) issue(dir string, s subject) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	name := pkix.Name{CommonName: s.user}
	if s.group != "" {
		name.Organization = []string{s.group}
	}
	template, err := newTemplate(name)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.DNSNames = s.names
	for _, ip := range s.ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	if len(s.names)+len(s.ips) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	cert = encode("CERTIFICATE", der)
	key, err = writeKeyPair(dir, s.file, cert, private)
	return cert, key, err
}

func (a *authority) writeKubeconfig(dir string, s subject, server string) error {
	cert, key, err := a.issue(dir, s)
	if err != nil {
		return err
	}
	content, err := json.MarshalIndent(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "scale-to-zero",
		"clusters": []any{
			map[string]any{"name": "scale-to-zero", "cluster": map[string]any{"server": server, "certificate-authority-data": a.pem}},
		},
		"users":    []any{map[string]any{"name": s.user, "user": map[string]any{"client-certificate-data": cert, "client-key-data": key}}},
		"contexts": []any{map[string]any{"name": "scale-to-zero", "context": map[string]any{"cluster": "scale-to-zero", "user": s.user}}},
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, s.file+".kubeconfig"), content, 0o600)
}

func writeServiceAccountKey(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	_, err = writeKeyPair(dir, "service-account", encode("PUBLIC KEY", public), key)
	return err
}

// writeKeyPair writes the certificate to FILE.crt and the private key to FILE.key.
func writeKeyPair(dir, file string, public []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	private := encode("PRIVATE KEY", der)
	if err := os.WriteFile(filepath.Join(dir, file+".crt"), public, 0o600); err != nil {
		return nil, err
	}
	return private, os.WriteFile(filepath.Join(dir, file+".key"), private, 0o600)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
