// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// born is when the identities of these tests were made.
func born() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

const day = 24 * time.Hour

func testNames() []string { return []string{testHost, testHost + ".cluster.local"} }

// bornIdentity is an authority made at born, with a leaf that it has signed at another time.
func bornIdentity(leafAt time.Time) *identity {
	return must(must(newIdentity(nil, testNames(), born())).withNewLeaf(testNames(), leafAt))
}

// TestWhatIsDue has every reason for a change, with the last moment at which it is not one and the first at which it is.
func TestWhatIsDue(t *testing.T) {
	const (
		young    = "the certificate is in the last third of its life"
		expiring = "the authority expires within a year"
		replaced = "the authority has a successor"
	)
	// A leaf begins skew before it is made: two thirds of its life are over that much earlier.
	renewed := born().Add(leafLife*2/3 - skew/3)
	rotation := born().Add(authorityLife - authorityOverlap)
	succeeded := func() *identity { return must(bornIdentity(rotation.Add(-day)).withNewAuthority(rotation)) }
	leafless := func() *identity {
		id := bornIdentity(born())
		id.leaf, id.leafProblem = nil, "the leaf is lost"
		return id
	}
	for name, tc := range map[string]struct {
		id          *identity
		unpublished bool
		at          time.Time
		want        string
	}{
		"a new one":                               {id: bornIdentity(born()), at: born()},
		"two thirds of the leaf's life, nearly":   {id: bornIdentity(born()), at: renewed.Add(-time.Second)},
		"two thirds of the leaf's life":           {id: bornIdentity(born()), at: renewed, want: young},
		"the leaf has expired":                    {id: bornIdentity(born()), at: born().Add(leafLife + day), want: young},
		"an unpublished authority keeps its leaf": {id: bornIdentity(born()), unpublished: true, at: renewed, want: young},
		"a year before its end, nearly":           {id: bornIdentity(rotation.Add(-day)), at: rotation.Add(-time.Second)},
		"a year before its end":                   {id: bornIdentity(rotation.Add(-day)), at: rotation, want: expiring},
		"the authority comes before its leaf":     {id: bornIdentity(rotation.Add(-leafLife)), at: rotation, want: expiring},
		"a successor is new":                      {id: succeeded(), at: rotation},
		"a successor, an hour old, nearly":        {id: succeeded(), at: rotation.Add(publishedFor - time.Second)},
		"a successor, an hour old":                {id: succeeded(), at: rotation.Add(publishedFor), want: replaced},
		"a successor that nobody knows":           {id: succeeded(), unpublished: true, at: rotation.Add(day)},
		"a leaf of the old one that would be due": {id: succeeded(), unpublished: true, at: rotation.Add(leafLife)},
		"no leaf": {id: leafless(), at: born(), want: "the leaf is lost"},
		"no leaf, and nobody knows the authority": {id: leafless(), unpublished: true, at: born(), want: "the leaf is lost"},
	} {
		t.Run(name, func(t *testing.T) {
			next, reason, err := tc.id.next(testNames(), !tc.unpublished, tc.at)
			if err != nil || reason != tc.want || (next != nil) != (tc.want != "") {
				t.Fatalf("reason %q, %v, error %v; want %q", reason, next != nil, err, tc.want)
			}
			if next == nil {
				return
			}
			newAuthority := !next.authorities[0].Equal(tc.id.authorities[0])
			newLeaf := tc.id.leaf == nil || !next.leaf.Leaf.Equal(tc.id.leaf.Leaf)
			if newAuthority != (tc.want == expiring) || newLeaf == newAuthority {
				t.Errorf("a new authority: %t, a new leaf: %t", newAuthority, newLeaf)
			}
			if newLeaf && next.leaf.Leaf.CheckSignatureFrom(next.authorities[0]) != nil {
				t.Error("another authority than the first has signed the leaf")
			}
		})
	}
	for name, tc := range map[string]struct {
		id   *identity
		want time.Time
	}{
		"a new one":                        {bornIdentity(born()), renewed},
		"a leaf that the authority limits": {bornIdentity(rotation.Add(-day)), rotation},
		"a successor":                      {succeeded(), rotation.Add(publishedFor)},
	} {
		if got := tc.id.due(); !got.Equal(tc.want) {
			t.Errorf("%s is due %s, want %s", name, got, tc.want)
		}
	}
}

// TestWhatIsSigned: verifiers of all kinds accept an authority and its leaf, and the leaf is good for nothing but to serve.
func TestWhatIsSigned(t *testing.T) {
	id := bornIdentity(born().Add(day))
	authority, leaf := id.authorities[0], id.leaf.Leaf
	for what, ok := range map[string]bool{
		"the authority is one":                        authority.IsCA && authority.BasicConstraintsValid,
		"it signs leaves only":                        authority.MaxPathLen == 0 && authority.MaxPathLenZero,
		"its key signs certificates":                  authority.KeyUsage == x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature,
		"it begins skew ago":                          authority.NotBefore.Equal(born().Add(-skew)),
		"it ends in five years":                       authority.NotAfter.Equal(born().Add(5 * 365 * day)),
		"its number makes its name unique":            authority.Subject.SerialNumber == authority.SerialNumber.Text(16),
		"it is known as ours":                         authority.Subject.CommonName == "scale-to-zero webhook",
		"it has signed itself":                        authority.CheckSignatureFrom(authority) == nil,
		"its number has at most 20 octets":            authority.SerialNumber.Sign() > 0 && authority.SerialNumber.BitLen() <= 128,
		"the leaf is no authority":                    !leaf.IsCA && leaf.BasicConstraintsValid,
		"its key signs handshakes":                    leaf.KeyUsage == x509.KeyUsageDigitalSignature,
		"it is for servers":                           slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}),
		"it has all names":                            slices.Equal(leaf.DNSNames, testNames()),
		"it begins skew before it is made":            leaf.NotBefore.Equal(born().Add(day - skew)),
		"it ends in 90 days":                          leaf.NotAfter.Equal(born().Add(91 * day)),
		"what is served is the leaf, without a chain": len(id.leaf.Certificate) == 1 && bytes.Equal(id.leaf.Certificate[0], leaf.Raw),
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
}

// TestPredecessors: a new authority keeps the bundle's others, until they expire or are too many.
func TestPredecessors(t *testing.T) {
	third := must(must(bornIdentity(born()).withNewAuthority(born().Add(day))).withNewAuthority(born().Add(2 * day)))
	for name, tc := range map[string]struct {
		at   time.Time
		want []*x509.Certificate // after the new one
	}{
		"all are valid, the oldest is one too many": {born().Add(3 * day), third.authorities[:2]},
		"the oldest ends": {born().Add(authorityLife), third.authorities[:2]},
		"the second ends": {born().Add(authorityLife + day), third.authorities[:1]},
		"all end":         {born().Add(authorityLife + 2*day), nil},
	} {
		t.Run(name, func(t *testing.T) {
			next := must(third.withNewAuthority(tc.at))
			if !slices.EqualFunc(next.authorities[1:], tc.want, (*x509.Certificate).Equal) {
				t.Errorf("%d authorities are kept, want %d", len(next.authorities)-1, len(tc.want))
			}
			if next.leaf != third.leaf || next.authorities[0].CheckSignatureFrom(next.authorities[0]) != nil {
				t.Error("the leaf is not kept, or the new authority is not the first")
			}
		})
	}
}

// TestTrustedAuthorities: of a caBundle that somebody else may have written, a new identity keeps what was ours.
func TestTrustedAuthorities(t *testing.T) {
	ours, foreign := bornIdentity(born()).bundle(), encodeCert(newIssuer(nil).cert)
	for name, tc := range map[string]struct {
		trusted []byte
		want    int
	}{
		"nothing":               {nil, 0},
		"ours":                  {ours, 1},
		"ours, with white":      {append([]byte("\n\n"), append(ours, "\n \n"...)...), 1},
		"somebody else's":       {foreign, 0},
		"ours and another":      {append(slices.Clone(foreign), ours...), 1},
		"what does not parse":   {append(slices.Clone(ours), "x"...), 0},
		"ours that has expired": {must(newIdentity(nil, testNames(), born().Add(-authorityLife))).bundle(), 0},
	} {
		t.Run(name, func(t *testing.T) {
			id := must(newIdentity(tc.trusted, testNames(), born()))
			if got := len(id.authorities) - 1; got != tc.want {
				t.Errorf("%d are kept", got)
			}
			if id.leaf.Leaf.CheckSignatureFrom(id.authorities[0]) != nil {
				t.Error("the leaf is not the new authority's")
			}
		})
	}
}

// TestUnusableIdentities: why a Secret is thrown away, or its leaf, in the words of the log.
func TestUnusableIdentities(t *testing.T) {
	good := must(bornIdentity(born()).data())
	old := bornIdentity(born())
	with := func(key string, value []byte) map[string][]byte {
		data := maps.Clone(good)
		data[key] = value
		return data
	}
	pkcs8 := func(key any) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
	}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	notSigning := must(sign(&x509.Certificate{
		SerialNumber: must(serialNumber()), Subject: pkix.Name{CommonName: "no signer"}, NotBefore: born(), NotAfter: born().Add(day),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: true,
	}, old.authorities[0], old.authorityKey.Public(), old.authorityKey))
	outlives := must(bornIdentity(born()).withNewLeaf(testNames(), born()))
	outlives.leaf.Leaf = must(sign(&x509.Certificate{
		SerialNumber: must(serialNumber()), DNSNames: testNames(), NotBefore: born(), NotAfter: born().Add(authorityLife + time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, outlives.authorities[0], outlives.leaf.PrivateKey.(*ecdsa.PrivateKey).Public(), outlives.authorityKey))
	outlives.leaf.Certificate[0] = outlives.leaf.Leaf.Raw
	oneName := must(must(newIdentity(nil, testNames(), born())).withNewLeaf(testNames()[:1], born()))
	for name, tc := range map[string]struct {
		data    map[string][]byte
		at      time.Time
		err     string // of the authority
		problem string // of the leaf; its beginning
	}{
		"good":      {data: good, at: born()},
		"no bundle": {data: with(keyBundle, []byte(" \n")), at: born(), err: "reading ca.crt: it is missing or empty"},
		"more than certificates": {
			data: with(keyBundle, append(slices.Clone(good[keyBundle]), "x"...)), at: born(), err: "reading ca.crt: it is not PEM",
		},
		"an authority that signs not": {
			data: with(keyBundle, encodeCert(notSigning)), at: born(), err: `reading ca.crt: certificate "CN=no signer" is not an authority's`,
		},
		"no certificate": {
			data: with(keyBundle, badCertificate()), at: born(), err: "reading ca.crt: parsing certificate: x509: malformed certificate",
		},
		"no key": {data: with(keyAuthorityKey, nil), at: born(), err: "reading ca.key: it is missing or not PEM"},
		"a garbled key": {
			data: with(keyAuthorityKey, pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: []byte("x")})), at: born(),
			err: "reading ca.key: parsing key: ",
		},
		"another kind of key": {
			data: with(keyAuthorityKey, pkcs8(other)), at: born(), err: "reading ca.key: it is a ed25519.PrivateKey, want an ECDSA key",
		},
		"another key": {
			data: with(keyAuthorityKey, pkcs8(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))), at: born(),
			err: "ca.key is not the key of the first certificate in ca.crt",
		},
		"the authority's last second": {
			data: good, at: born().Add(authorityLife - time.Second), problem: "verifying tls.crt: x509: certificate has expired",
		},
		"the authority's end":     {data: good, at: born().Add(authorityLife), err: "the authority expired at 2030-12-31T00:00:00Z"},
		"a leaf of a predecessor": {data: must(must(bornIdentity(born()).withNewAuthority(born())).data()), at: born()},
		"a leaf that outlives it": {data: must(outlives.data()), at: born(), problem: "tls.crt outlives its authority"},
		"a leaf that lacks a name": {
			data: must(oneName.data()), at: born(), problem: "verifying tls.crt: x509: certificate is valid for webhook.scale-to-zero.svc, not ",
		},
		"no leaf":       {data: with(keyLeaf, nil), at: born(), problem: "reading tls.crt and tls.key: tls: failed to find any PEM data"},
		"a leaf's end":  {data: good, at: born().Add(leafLife), problem: ""},
		"after its end": {data: good, at: born().Add(leafLife + time.Second), problem: "verifying tls.crt: x509: certificate has expired"},
		"before it began": {
			data: good, at: born().Add(-skew - time.Second), problem: "verifying tls.crt: x509: certificate has expired or is not yet valid",
		},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := parseIdentity(tc.data, testNames(), tc.at)
			if tc.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.err) || id != nil {
					t.Errorf("got %v, want %s", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			bad := tc.problem != ""
			if !strings.HasPrefix(id.leafProblem, tc.problem) || (id.leafProblem != "") != bad || (id.leaf == nil) != bad {
				t.Errorf("the leaf's problem is %q, want %q", id.leafProblem, tc.problem)
			}
		})
	}
}

// TestSecretHoldsEverything: what is written is what is read.
func TestSecretHoldsEverything(t *testing.T) {
	want := must(bornIdentity(born()).withNewAuthority(born().Add(day)))
	data := must(want.data())
	got, err := parseIdentity(data, testNames(), born().Add(day))
	if err != nil || got.leafProblem != "" {
		t.Fatal(err, got)
	}
	if !slices.EqualFunc(got.authorities, want.authorities, (*x509.Certificate).Equal) || !got.leaf.Leaf.Equal(want.leaf.Leaf) ||
		!got.leaf.PrivateKey.(*ecdsa.PrivateKey).Equal(want.leaf.PrivateKey) || !got.authorityKey.(*ecdsa.PrivateKey).Equal(want.authorityKey) {
		t.Error("what was read differs")
	}
	if again := must(got.data()); !maps.EqualFunc(again, data, bytes.Equal) {
		t.Error("it is written otherwise the second time")
	}
	for key, kind := range map[string]string{
		"ca.crt": "CERTIFICATE", "ca.key": "PRIVATE KEY", "tls.crt": "CERTIFICATE", "tls.key": "PRIVATE KEY",
	} {
		if block, _ := pem.Decode(data[key]); block == nil || block.Type != kind {
			t.Errorf("%s is %v, want %s", key, block, kind)
		}
	}
}
