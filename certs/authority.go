// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The Secret's keys. The first certificate in keyBundle is the authority whose key is in keyAuthorityKey. Earlier authorities follow
// until they expire.
const (
	keyLeaf         = corev1.TLSCertKey
	keyLeafKey      = corev1.TLSPrivateKeyKey
	keyBundle       = corev1.ServiceAccountRootCAKey // ca.crt
	keyAuthorityKey = "ca.key"
)

const (
	leafLife      = 90 * 24 * time.Hour
	authorityLife = 5 * 365 * 24 * time.Hour
	// authorityOverlap is how long before its expiry an authority gets a successor. It exceeds leafLife, so that the last leaf of the
	// old authority is renewed at its normal time.
	authorityOverlap = 365 * 24 * time.Hour
	// publishedFor is how long a new authority is published before it signs the served certificate, so that every API server knows it by
	// then.
	publishedFor = time.Hour
	// maxPredecessors bounds the bundle, in case the Secret is lost again and again.
	maxPredecessors = 2
	// skew is how far clocks may differ, for example between this machine and an API server.
	skew = 5 * time.Minute

	commonName      = "scale-to-zero webhook"
	certificateType = "CERTIFICATE"
	keyType         = "PRIVATE KEY"
)

// identity is a parsed and verified Secret. Everything in it fits together, but it may be expired or due for renewal.
type identity struct {
	authorities  []*x509.Certificate // the signing one first, then earlier ones; never empty
	authorityKey crypto.Signer       // of authorities[0]
	leaf         *tls.Certificate    // nil if the Secret's leaf is not usable
	leafProblem  string              // why leaf is nil
}

// parseIdentity reads a Secret's data. The error says why the data is not usable as an authority.
func parseIdentity(data map[string][]byte, dnsNames []string, now time.Time) (*identity, error) {
	id, err := parseAuthority(data, now)
	if err != nil {
		return nil, err
	}
	if id.leaf, err = parseLeaf(data, id.authorities, dnsNames, now); err != nil {
		id.leafProblem = err.Error()
	}
	return id, nil
}

// parseAuthority reads what a Secret has of an authority, and no leaf.
func parseAuthority(data map[string][]byte, now time.Time) (*identity, error) {
	authorities, err := parseAuthorities(data[keyBundle])
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", keyBundle, err)
	}
	key, err := parseKey(data[keyAuthorityKey])
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", keyAuthorityKey, err)
	}
	public, ok := authorities[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || !public.Equal(key.Public()) {
		return nil, fmt.Errorf("%s is not the key of the first certificate in %s", keyAuthorityKey, keyBundle)
	}
	if end := authorities[0].NotAfter; !now.Before(end) {
		return nil, fmt.Errorf("the authority expired at %s", end.Format(time.RFC3339))
	}
	return &identity{authorities: authorities, authorityKey: key}, nil
}

func parseAuthorities(bundle []byte) ([]*x509.Certificate, error) {
	var authorities []*x509.Certificate
	for rest := bytes.TrimSpace(bundle); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("it is not PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate: %w", err)
		}
		if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
			return nil, fmt.Errorf("certificate %q is not an authority's", cert.Subject)
		}
		authorities = append(authorities, cert)
	}
	if len(authorities) == 0 {
		return nil, errors.New("it is missing or empty")
	}
	return authorities, nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("it is missing or not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parsing key: %w", err)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T, want an ECDSA key", key)
	}
	return signer, nil
}

// parseLeaf returns the serving certificate, if a client that trusts authorities accepts it now for every DNS name.
func parseLeaf(data map[string][]byte, authorities []*x509.Certificate, dnsNames []string, now time.Time) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(data[keyLeaf], data[keyLeafKey])
	if err != nil {
		return nil, fmt.Errorf("reading %s and %s: %w", keyLeaf, keyLeafKey, err)
	}
	roots := x509.NewCertPool()
	for _, a := range authorities {
		roots.AddCert(a)
	}
	for _, name := range dnsNames {
		chains, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now})
		if err != nil {
			return nil, fmt.Errorf("verifying %s: %w", keyLeaf, err)
		}
		if issuer := chains[0][len(chains[0])-1]; pair.Leaf.NotAfter.After(issuer.NotAfter) {
			return nil, fmt.Errorf("%s outlives its authority", keyLeaf)
		}
	}
	return &pair, nil
}

// newIdentity creates an authority and a leaf. It keeps our authorities from trusted, the present caBundle, in the bundle: another
// replica may still serve one of their leaves for a while.
func newIdentity(trusted []byte, dnsNames []string, now time.Time) (*identity, error) {
	predecessors, err := parseAuthorities(trusted)
	if err != nil {
		predecessors = nil // nothing can be verified with it
	}
	predecessors = slices.DeleteFunc(predecessors, func(c *x509.Certificate) bool { return c.Subject.CommonName != commonName })
	id, err := (&identity{authorities: predecessors}).withNewAuthority(now)
	if err != nil {
		return nil, err
	}
	return id.withNewLeaf(dnsNames, now)
}

// next returns the replacement for id, and the reason; nil if nothing is due. published is set if the API server has all authorities
// of id.
func (id *identity) next(dnsNames []string, published bool, now time.Time) (*identity, string, error) {
	current := id.authorities[0]
	switch {
	case id.leaf == nil:
		next, err := id.withNewLeaf(dnsNames, now)
		return next, id.leafProblem, err
	case id.leaf.Leaf.CheckSignatureFrom(current) != nil:
		// The key of the authority that signed the leaf is gone. Serve the leaf until its successor can be served.
		if !published || now.Before(current.NotBefore.Add(skew+publishedFor)) {
			return nil, "", nil
		}
		next, err := id.withNewLeaf(dnsNames, now)
		return next, "the authority has a successor", err
	case !now.Before(current.NotAfter.Add(-authorityOverlap)):
		next, err := id.withNewAuthority(now)
		return next, "the authority expires within a year", err
	case !now.Before(renewal(id.leaf.Leaf)):
		next, err := id.withNewLeaf(dnsNames, now)
		return next, "the certificate is in the last third of its life", err
	default:
		return nil, "", nil
	}
}

// due returns when next will return a replacement, if nothing is due now and everything is published.
func (id *identity) due() time.Time {
	current := id.authorities[0]
	if id.leaf.Leaf.CheckSignatureFrom(current) != nil {
		return current.NotBefore.Add(skew + publishedFor)
	}
	leaf, authority := renewal(id.leaf.Leaf), current.NotAfter.Add(-authorityOverlap)
	if authority.Before(leaf) {
		return authority
	}
	return leaf
}

// renewal returns when two thirds of cert's lifetime are over.
func renewal(cert *x509.Certificate) time.Time {
	return cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 3)
}

func (id *identity) withNewAuthority(now time.Time) (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the authority's key: %w", err)
	}
	cert, err := newAuthority(commonName, key, now, authorityLife)
	if err != nil {
		return nil, err
	}
	expired := func(c *x509.Certificate) bool { return !now.Before(c.NotAfter) }
	kept := slices.DeleteFunc(slices.Clone(id.authorities), expired)
	kept = kept[:min(len(kept), maxPredecessors)]
	return &identity{
		authorities:  append([]*x509.Certificate{cert}, kept...),
		authorityKey: key,
		leaf:         id.leaf,
		leafProblem:  id.leafProblem,
	}, nil
}

// newAuthority returns the certificate of an authority with that name and key.
func newAuthority(name string, key crypto.Signer, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// The number distinguishes an authority from the earlier ones: verifiers look authorities up by name.
		Subject:               pkix.Name{CommonName: name, SerialNumber: serial.Text(16)},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing the authority: %w", err)
	}
	return cert, nil
}

func (id *identity) withNewLeaf(dnsNames []string, now time.Time) (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the certificate's key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	authority := id.authorities[0]
	end := now.Add(leafLife)
	if end.After(authority.NotAfter) {
		end = authority.NotAfter
	}
	cert, err := sign(&x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		DNSNames:              dnsNames,
		NotBefore:             now.Add(-skew),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}, authority, key.Public(), id.authorityKey)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate: %w", err)
	}
	return &identity{
		authorities:  id.authorities,
		authorityKey: id.authorityKey,
		leaf:         &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert},
	}, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("creating certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing certificate: %w", err)
	}
	return cert, nil
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// bundle returns the value of caBundle.
func (id *identity) bundle() []byte { return bundleOf(id.authorities) }

func bundleOf(authorities []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, a := range authorities {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: a.Raw}))
	}
	return b.Bytes()
}

// data returns the Secret's data, in the format of parseIdentity.
func (id *identity) data() (map[string][]byte, error) {
	authorityKey, err := encodeKey(id.authorityKey)
	if err != nil {
		return nil, err
	}
	leafKey, err := encodeKey(id.leaf.PrivateKey)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		keyBundle:       id.bundle(),
		keyAuthorityKey: authorityKey,
		keyLeaf:         pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: id.leaf.Certificate[0]}),
		keyLeafKey:      leafKey,
	}, nil
}

func encodeKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: der}), nil
}
