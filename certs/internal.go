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
	"slices"
	"time"
)

// internalName is the name of our internal authorities.
const internalName = "scale-to-zero internal"

// Leaf is one certificate of the internal authority.
type Leaf struct {
	// Secret has it, with its key and the authorities.
	Secret string
	// DNSNames are whom it is for. The first is an identity, which no other leaf has.
	DNSNames []string
	// Server is set if it is for a server too, and not only for a client.
	Server bool
	// Use is called with what the Secret contains, for the first time and after each change. It is nil if only somebody else reads the
	// Secret.
	Use func(Pair)
}

// Pair is the content of a leaf's Secret: a certificate, its key and the authorities, all in PEM.
type Pair struct{ Certificate, Key, Authorities []byte }

func (l *Leaf) usages() []x509.ExtKeyUsage {
	if l.Server {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
}

// lives says for how long certificates are valid.
type lives struct {
	leaf, authority time.Duration
	// overlap is how long before its expiry an authority gets a successor. It exceeds leaf, as with the webhook's.
	overlap time.Duration
	// published is how long a new authority is known to everybody before it signs.
	published time.Duration
}

// livesOf returns what follows from the life of a leaf: for 90 days, an authority lasts 5 years.
func livesOf(leaf time.Duration) lives {
	return lives{leaf: leaf, authority: 20 * leaf, overlap: 4 * leaf, published: min(publishedFor, leaf/6)}
}

// internal is the internal authority, as its Secret contains it. It signs for the parts of one installation, and everybody who accepts
// its certificates accepts no others'.
type internal struct {
	lives

	authorities []*x509.Certificate // the signing one first, then earlier ones; never empty
	key         crypto.Signer       // of authorities[0]
}

// parseInternal reads a Secret's data. The error says why the data is not usable as an authority.
func parseInternal(data map[string][]byte, l lives, now time.Time) (*internal, error) {
	id, err := parseAuthority(data, now)
	if err != nil {
		return nil, err
	}
	return &internal{lives: l, authorities: id.authorities, key: id.authorityKey}, nil
}

// newInternal makes an authority. trusted are the authorities that a leaf's Secret still has: their certificates stay valid for a while.
func newInternal(trusted []byte, l lives, now time.Time) (*internal, error) {
	earlier, err := parseAuthorities(trusted)
	if err != nil {
		earlier = nil // nothing can be verified with it
	}
	earlier = slices.DeleteFunc(earlier, func(c *x509.Certificate) bool { return c.Subject.CommonName != internalName })
	return (&internal{lives: l, authorities: earlier}).successor(now)
}

// successor returns a with a new authority before its present ones.
func (a *internal) successor(now time.Time) (*internal, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the authority's key: %w", err)
	}
	cert, err := newAuthority(internalName, key, now, a.authority)
	if err != nil {
		return nil, err
	}
	kept := slices.DeleteFunc(slices.Clone(a.authorities), func(c *x509.Certificate) bool { return !now.Before(c.NotAfter) })
	kept = kept[:min(len(kept), maxPredecessors)]
	return &internal{lives: a.lives, authorities: append([]*x509.Certificate{cert}, kept...), key: key}, nil
}

// due returns when the authority gets a successor. One that lasts longer than it should gets one at once.
func (a *internal) due(now time.Time) time.Time {
	end := a.authorities[0].NotAfter
	if end.After(now.Add(a.authority)) {
		return now
	}
	return end.Add(-a.overlap)
}

func (a *internal) bundle() []byte { return bundleOf(a.authorities) }

// data returns the Secret's data, in the format of parseInternal.
func (a *internal) data() (map[string][]byte, error) {
	key, err := encodeKey(a.key)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{keyBundle: a.bundle(), keyAuthorityKey: key}, nil
}

// next returns what a leaf's Secret is to contain instead of data, and why; nil if it may stay. Then due is when to look again.
func (a *internal) next(l *Leaf, data map[string][]byte, now time.Time) (next map[string][]byte, reason string, due time.Time, err error) {
	reason, due = a.judge(l, data, now)
	switch {
	case reason != "":
		next, err = a.issue(l, now)
	case !bytes.Equal(data[keyBundle], a.bundle()):
		// The leaf stays: who has not seen the new authority yet goes on to accept it.
		reason = "the authorities have changed"
		next = map[string][]byte{keyLeaf: data[keyLeaf], keyLeafKey: data[keyLeafKey], keyBundle: a.bundle()}
	}
	return next, reason, due, err
}

// judge says why a new leaf is due; if none is, when.
func (a *internal) judge(l *Leaf, data map[string][]byte, now time.Time) (reason string, due time.Time) {
	pair, err := tls.X509KeyPair(data[keyLeaf], data[keyLeafKey])
	if err != nil {
		return err.Error(), time.Time{}
	}
	roots := x509.NewCertPool()
	for _, c := range a.authorities {
		roots.AddCert(c)
	}
	leaf := pair.Leaf
	for _, usage := range l.usages() {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return err.Error(), time.Time{}
		}
	}
	current, renewal := a.authorities[0], leaf.NotAfter.Add(-a.leaf/3)
	switch {
	case !slices.Equal(leaf.DNSNames, l.DNSNames):
		return "its names have changed", time.Time{}
	case leaf.NotAfter.After(now.Add(a.leaf)):
		return "it lasts longer than it should", time.Time{}
	case leaf.CheckSignatureFrom(current) != nil:
		if due = current.NotBefore.Add(skew + a.published); now.Before(due) {
			return "", due
		}
		return "the authority has a successor", time.Time{}
	case !now.Before(renewal):
		return "the certificate is in the last third of its life", time.Time{}
	}
	return "", renewal
}

// issue returns the content of a leaf's Secret, with a new leaf.
func (a *internal) issue(l *Leaf, now time.Time) (map[string][]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the certificate's key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	end := now.Add(a.leaf)
	if last := a.authorities[0].NotAfter; end.After(last) {
		end = last
	}
	cert, err := sign(&x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: l.DNSNames[0]}, DNSNames: l.DNSNames,
		NotBefore: now.Add(-skew), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: l.usages(), BasicConstraintsValid: true,
	}, a.authorities[0], key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate: %w", err)
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		keyLeaf: pem.EncodeToMemory(&pem.Block{Type: certificateType, Bytes: cert.Raw}), keyLeafKey: encoded, keyBundle: a.bundle(),
	}, nil
}

// check reports why leaves cannot be made as they are asked for.
func check(leaves []Leaf) error {
	names, secrets := map[string]bool{}, map[string]bool{}
	for _, l := range leaves {
		if l.Secret == "" || len(l.DNSNames) == 0 {
			return errors.New("a leaf has no Secret or no name")
		}
		if names[l.DNSNames[0]] || secrets[l.Secret] {
			return fmt.Errorf("two leaves are for %s, or in Secret %s", l.DNSNames[0], l.Secret)
		}
		names[l.DNSNames[0]], secrets[l.Secret] = true, true
	}
	return nil
}
