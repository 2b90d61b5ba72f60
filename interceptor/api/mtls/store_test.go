// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls/mtlstest"
)

// handshake connects a client to a server, and returns whom the server takes it for, and both sides' errors.
func handshake(t *testing.T, server, client *tls.Config) (who mtls.Identity, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		c := tls.Server(conn, server)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = c.HandshakeContext(ctx)
		if err == nil {
			who = mtls.Of(c.ConnectionState())
			_, err = c.Write([]byte("x"))
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := tls.Client(conn, client)
	if _, clientErr = c.Read(make([]byte, 1)); clientErr != nil {
		_ = conn.Close()
	}
	return who, <-done, clientErr
}

func TestWhoGetsIn(t *testing.T) {
	ours, foreign := mtlstest.NewAuthority(t), mtlstest.NewAuthority(t)
	set := func(f mtls.Files) *tls.Config {
		s := mtls.New(func() time.Time { return time.Now().Add(-2 * time.Hour) }) // takes what has expired for us
		f.Authorities = ours.Bundle()
		if err := s.Set(f); err != nil {
			// A certificate of another authority is shown all the same, as an attacker would.
			pair, err := tls.X509KeyPair(f.Certificate, f.Key)
			if err != nil {
				t.Fatal(err)
			}
			return &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
		}
		c := s.Client()
		c.VerifyConnection = nil
		return c
	}
	all := []string{string(mtls.Controller), string(mtls.KEDA)}
	for name, tc := range map[string]struct {
		client *tls.Config
		who    mtls.Identity
		fails  bool
	}{
		"a controller":        {set(ours.For(mtls.Controller)), mtls.Controller, false},
		"KEDA":                {set(ours.For(mtls.KEDA)), mtls.KEDA, false},
		"an interceptor":      {set(ours.For(mtls.Interceptor)), mtls.Interceptor, false},
		"somebody else":       {set(ours.Issue(mtlstest.Leaf{Names: []string{"web.shop.svc"}})), "", false},
		"who claims too much": {set(ours.Issue(mtlstest.Leaf{Names: all})), "", false},
		"no certificate":      {&tls.Config{InsecureSkipVerify: true}, "", true},
		"TLS 1.2":             {&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, "", true},
		"a foreign authority": {set(foreign.For(mtls.KEDA)), "", true},
		"an expired one": {
			set(ours.Issue(mtlstest.Leaf{
				Names: []string{string(mtls.KEDA)}, Begins: time.Now().Add(-50 * time.Minute), Expires: time.Now().Add(-time.Second),
			})), "", true,
		},
		"one of tomorrow": {
			set(ours.Issue(mtlstest.Leaf{
				Names: []string{string(mtls.KEDA)}, Begins: time.Now().Add(time.Hour), Expires: time.Now().Add(2 * time.Hour),
			})),
			"", true,
		},
		"issued by a clock that is ahead": {
			set(ours.Issue(mtlstest.Leaf{Names: []string{string(mtls.KEDA)}, Begins: time.Now().Add(time.Minute)})), mtls.KEDA, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			who, serverErr, clientErr := handshake(t, ours.Store(mtls.Interceptor).Server(), tc.client)
			if (serverErr != nil) != tc.fails || (clientErr != nil) != tc.fails || who != tc.who {
				t.Errorf("it is %q; the server says %v, the client %v", who, serverErr, clientErr)
			}
		})
	}
}

// TestServersThatClientsRefuse: a client calls nobody but interceptors of its installation.
func TestServersThatClientsRefuse(t *testing.T) {
	ours, foreign := mtlstest.NewAuthority(t), mtlstest.NewAuthority(t)
	server := func(f mtls.Files) *tls.Config {
		pair, err := tls.X509KeyPair(f.Certificate, f.Key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	}
	for name, tc := range map[string]struct {
		server *tls.Config
		says   string // what the client's error says; empty without one
	}{
		"an interceptor":         {ours.Store(mtls.Interceptor).Server(), ""},
		"KEDA as a server":       {server(ours.For(mtls.KEDA)), "incompatible key usage"},
		"another server of ours": {server(ours.Issue(mtlstest.Leaf{Names: []string{"webhook"}, Server: true})), "not for an interceptor"},
		"an impostor":            {server(foreign.For(mtls.Interceptor)), "unknown authority"},
		"an expired one": {server(ours.Issue(mtlstest.Leaf{
			Names: []string{string(mtls.Interceptor)}, Server: true, Expires: time.Now().Add(-time.Minute),
		})), "expired"},
		"without any certificates": {mtls.New(nil).Server(), "internal error"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := handshake(t, tc.server, ours.Store(mtls.Controller).Client())
			if (err != nil) != (tc.says != "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("the client says %v", err)
			}
		})
	}
}

// TestAuthorityRotates: at no step of a rotation does anybody refuse anybody, in whatever order the steps reach them.
func TestAuthorityRotates(t *testing.T) {
	before, after := mtlstest.NewAuthority(t), mtlstest.NewAuthority(t)
	both := func(signer, other *mtlstest.Authority, who mtls.Identity) mtls.Files {
		f := signer.For(who)
		f.Authorities = append(signer.Bundle(), other.Bundle()...)
		return f
	}
	steps := func(who mtls.Identity) []mtls.Files {
		return []mtls.Files{before.For(who), both(before, after, who), both(after, before, who), after.For(who)}
	}
	server, client := steps(mtls.Interceptor), steps(mtls.KEDA)
	for s := range server {
		for c := range client {
			one, other := mtls.New(nil), mtls.New(nil)
			for store, files := range map[*mtls.Store]mtls.Files{one: server[s], other: client[c]} {
				if err := store.Set(files); err != nil {
					t.Fatal(err)
				}
			}
			who, serverErr, clientErr := handshake(t, one.Server(), other.Client())
			apart := s-c > 1 || c-s > 1 // they are an hour apart and more, except for the first and the last step
			if ok := serverErr == nil && clientErr == nil && who == mtls.KEDA; !apart && !ok {
				t.Errorf("server at step %d, client at step %d: %v, %v", s, c, serverErr, clientErr)
			}
		}
	}
}

// TestUnusableFilesChangeNothing: the certificate that is in use stays when what replaces it is broken.
func TestUnusableFilesChangeNothing(t *testing.T) {
	ours, foreign := mtlstest.NewAuthority(t), mtlstest.NewAuthority(t)
	good, other := ours.For(mtls.KEDA), ours.For(mtls.KEDA)
	for name, f := range map[string]mtls.Files{
		"nothing":              {},
		"no key":               {Certificate: good.Certificate, Authorities: good.Authorities},
		"another's key":        {Certificate: good.Certificate, Key: other.Key, Authorities: good.Authorities},
		"no authority":         {Certificate: good.Certificate, Key: good.Key},
		"another authority":    {Certificate: good.Certificate, Key: good.Key, Authorities: foreign.Bundle()},
		"an expired one":       ours.Issue(mtlstest.Leaf{Expires: time.Now().Add(-time.Minute)}),
		"one of tomorrow":      ours.Issue(mtlstest.Leaf{Begins: time.Now().Add(time.Hour), Expires: time.Now().Add(2 * time.Hour)}),
		"text as an authority": {Certificate: good.Certificate, Key: good.Key, Authorities: []byte("x")},
	} {
		t.Run(name, func(t *testing.T) {
			s := mtls.New(nil)
			if err := s.Set(f); err == nil || !s.Expires().IsZero() {
				t.Errorf("it is used: %v", err)
			}
			select {
			case <-s.Ready():
				t.Error("it is ready")
			default:
			}
			if err := s.Set(good); err != nil {
				t.Fatal(err)
			}
			expires := s.Expires()
			if err := s.Set(f); err == nil || s.Expires() != expires {
				t.Errorf("it replaces a good one: %v", err)
			}
			<-s.Ready()
		})
	}
}

// TestFreshCertificateWaits: KEDA, whose clock may be behind, does not see a certificate before it is valid everywhere.
func TestFreshCertificateWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours := mtlstest.NewAuthority(t)
		s := ours.Store(mtls.Interceptor)
		shown := func() time.Time {
			c, err := s.Server().GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			return c.Leaf.NotBefore
		}
		first := shown()
		fresh := ours.Issue(mtlstest.Leaf{Names: []string{string(mtls.Interceptor)}, Server: true, Begins: time.Now()})
		for range 2 { // the Secret is seen again
			if err := s.Set(fresh); err != nil {
				t.Fatal(err)
			}
		}
		if !shown().Equal(first) {
			t.Error("it is shown at once")
		}
		time.Sleep(6 * time.Minute) //nolint:forbidigo // in a bubble it takes no time
		if shown().Equal(first) {
			t.Error("it is not shown")
		}
	})
}
