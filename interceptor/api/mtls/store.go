// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Identity is who a certificate is for. It is one of the certificate's DNS names.
type Identity string

// The identities. Nothing resolves these names: .internal is reserved for private use.
const (
	Interceptor Identity = "interceptor.scale-to-zero.internal"
	Controller  Identity = "controller.scale-to-zero.internal"
	KEDA        Identity = "keda.scale-to-zero.internal"
)

// skew is how far clocks may differ.
const skew = 5 * time.Minute

// Files are a certificate with its chain, its key, and the authorities that the others' certificates may be from, all in PEM.
type Files struct{ Certificate, Key, Authorities []byte }

// Store has this process's certificate, and the authorities. Set replaces them at any time: new connections use the new ones, and
// connections that are open stay. It is made by New.
type Store struct {
	now     func() time.Time
	current atomic.Pointer[material]
	first   sync.Once
	ready   chan struct{}
}

// material is what was set at one time. It does not change.
type material struct {
	leaf        *tls.Certificate
	before      *tls.Certificate // the leaf that was set before, or nil
	authorities *x509.CertPool
}

// New returns an empty Store. now is its clock; nil is time.Now.
func New(now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	return &Store{now: now, ready: make(chan struct{})}
}

// Set uses a certificate from now on. If it is not usable, the earlier one stays, and the error says why.
func (s *Store) Set(f Files) error {
	leaf, err := tls.X509KeyPair(f.Certificate, f.Key)
	if err != nil {
		return fmt.Errorf("reading the certificate and its key: %w", err)
	}
	next := &material{leaf: &leaf, authorities: x509.NewCertPool()}
	if !next.authorities.AppendCertsFromPEM(f.Authorities) {
		return errors.New("reading the authorities: there is none")
	}
	chain := []*x509.Certificate{leaf.Leaf}
	for _, der := range leaf.Certificate[1:] {
		issuer, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("reading the certificate's chain: %w", err)
		}
		chain = append(chain, issuer)
	}
	if err := verify(chain, next.authorities, x509.ExtKeyUsageAny, s.now()); err != nil {
		return err
	}
	if last := s.current.Load(); last != nil {
		if next.before = last.leaf; last.leaf.Leaf.Equal(leaf.Leaf) {
			next.before = last.before
		}
	}
	s.current.Store(next)
	s.first.Do(func() { close(s.ready) })
	return nil
}

// Ready is closed once there is a certificate.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// Expires returns when the certificate expires; zero if there is none.
func (s *Store) Expires() time.Time {
	if m := s.current.Load(); m != nil {
		return m.leaf.Leaf.NotAfter
	}
	return time.Time{}
}

var errNone = errors.New("there is no certificate yet")

// leaf returns the certificate to show. A certificate that is valid from this moment on may seem not yet valid to a machine whose
// clock is behind, such as KEDA's. So the previous one is shown for a while, if it is still valid.
func (s *Store) leaf() (*tls.Certificate, error) {
	m := s.current.Load()
	if m == nil {
		return nil, errNone
	}
	now := s.now()
	if m.before != nil && now.Before(m.leaf.Leaf.NotBefore.Add(skew)) && now.Add(skew).Before(m.before.Leaf.NotAfter) {
		return m.before, nil
	}
	return m.leaf, nil
}

// Server returns the configuration of a server that shows this certificate, and accepts only clients with one of our authorities'.
func (s *Store) Server() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.leaf() },
		// VerifyConnection verifies it, by the authorities of the moment and with allowance for skewed clocks.
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: func(c tls.ConnectionState) error { return s.verify(c, x509.ExtKeyUsageClientAuth) },
		// A ticket would stand for a certificate that may have expired since.
		SessionTicketsDisabled: true,
	}
}

// Anybody returns the configuration of a server that shows this certificate to anybody, for HTTP/1.1.
func (s *Store) Anybody() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.leaf() },
	}
}

// Client returns the configuration of a client of the interceptors, which shows this certificate. Interceptors are dialed by their IP
// addresses, so it is the identity that is verified.
func (s *Store) Client() *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{"h2"},
		ServerName:           string(Interceptor),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.leaf() },
		InsecureSkipVerify:   true, //nolint:gosec // VerifyConnection verifies, by the authorities of the moment
		VerifyConnection: func(c tls.ConnectionState) error {
			if err := s.verify(c, x509.ExtKeyUsageServerAuth); err != nil {
				return err
			}
			if who := Of(c); who != Interceptor {
				return fmt.Errorf("verifying the server's certificate: it is for %q, not for an interceptor", who)
			}
			return nil
		},
	}
}

// verify verifies the other side's certificate for that use.
func (s *Store) verify(c tls.ConnectionState, usage x509.ExtKeyUsage) error {
	m := s.current.Load()
	if m == nil {
		return errNone
	}
	return verify(c.PeerCertificates, m.authorities, usage, s.now())
}

func verify(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("verifying a certificate: there is none")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if begin := chain[0].NotBefore; now.Before(begin) && !now.Add(skew).Before(begin) {
		now = begin // it was issued a moment ago, by a clock that is ahead of ours
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("verifying certificate %q: %w", chain[0].DNSNames, err)
	}
	return nil
}

// Of returns the identity in the other side's certificate, which the handshake has verified. It is empty if there is none of ours, or
// more than one.
func Of(c tls.ConnectionState) Identity {
	if len(c.PeerCertificates) == 0 {
		return ""
	}
	var who Identity
	for _, one := range []Identity{Interceptor, Controller, KEDA} {
		switch {
		case !slices.Contains(c.PeerCertificates[0].DNSNames, string(one)):
		case who != "":
			return ""
		default:
			who = one
		}
	}
	return who
}
