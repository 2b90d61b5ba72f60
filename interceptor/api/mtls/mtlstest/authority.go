// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package mtlstest makes certificates for tests.
package mtlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
)

// Authority issues certificates.
type Authority struct {
	tb   testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	// Trusted are further authorities whose certificates are to be accepted by who has one of this authority's.
	Trusted []*Authority
}

// NewAuthority returns an authority that nobody knows yet.
func NewAuthority(tb testing.TB) *Authority {
	tb.Helper()
	a := &Authority{tb: tb, key: newKey(tb)}
	template := &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: "test", SerialNumber: serial(tb).String()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	a.cert = a.sign(template, template, &a.key.PublicKey)
	return a
}

// Leaf says what a certificate is like. Its zero value is one without names, for a client, valid from an hour ago for another hour.
type Leaf struct {
	Names           []string
	Server          bool
	Begins, Expires time.Time
}

// Issue returns a certificate of the authority.
func (a *Authority) Issue(l Leaf) mtls.Files {
	a.tb.Helper()
	if l.Begins.IsZero() {
		l.Begins = time.Now().Add(-time.Hour)
	}
	if l.Expires.IsZero() {
		l.Expires = time.Now().Add(time.Hour)
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if l.Server {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	key := newKey(a.tb)
	cert := a.sign(&x509.Certificate{
		SerialNumber: serial(a.tb), DNSNames: l.Names, NotBefore: l.Begins, NotAfter: l.Expires,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages,
	}, a.cert, &key.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.tb.Fatal(err)
	}
	return mtls.Files{
		Certificate: encode("CERTIFICATE", cert.Raw), Key: encode("PRIVATE KEY", der), Authorities: a.Bundle(),
	}
}

// For returns a certificate of an identity.
func (a *Authority) For(who mtls.Identity) mtls.Files {
	return a.Issue(Leaf{Names: []string{string(who)}, Server: who == mtls.Interceptor})
}

// Store returns a Store with a certificate of an identity.
func (a *Authority) Store(who mtls.Identity) *mtls.Store {
	a.tb.Helper()
	s := mtls.New(nil)
	if err := s.Set(a.For(who)); err != nil {
		a.tb.Fatal(err)
	}
	return s
}

// Bundle returns the authority's certificate and those that are trusted with it.
func (a *Authority) Bundle() []byte {
	bundle := encode("CERTIFICATE", a.cert.Raw)
	for _, other := range a.Trusted {
		bundle = append(bundle, encode("CERTIFICATE", other.cert.Raw)...)
	}
	return bundle
}

func (a *Authority) sign(template, parent *x509.Certificate, public *ecdsa.PublicKey) *x509.Certificate {
	a.tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		a.tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.tb.Fatal(err)
	}
	return cert
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func serial(tb testing.TB) *big.Int {
	tb.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
