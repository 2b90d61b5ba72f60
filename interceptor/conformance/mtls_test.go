// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/externalscaler"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls/mtlstest"
)

// scalerHost is the name by which KEDA dials the interceptors.
const scalerHost = "scale-to-zero-interceptor.scale-to-zero.svc"

// serverFiles is the interceptors' certificate.
func serverFiles(a *mtlstest.Authority) mtls.Files {
	return a.Issue(mtlstest.Leaf{Names: []string{string(mtls.Interceptor), scalerHost}, Server: true})
}

// kedaCredentials are as KEDA 2.21 makes them of caCert, tlsClientCert and tlsClientKey: it verifies the name that it dials.
func kedaCredentials(t *testing.T, a *mtlstest.Authority) credentials.TransportCredentials {
	t.Helper()
	f := a.For(mtls.KEDA)
	pair, err := tls.X509KeyPair(f.Certificate, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(f.Authorities)
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12, ServerName: scalerHost,
	})
}

func (n *node) dialAs(c credentials.TransportCredentials) externalscaler.ExternalScalerClient {
	n.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+n.grpc, grpc.WithTransportCredentials(c))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	return externalscaler.NewExternalScalerClient(conn)
}

// TestMutualTLS: an interceptor is ready once it has a certificate. Then it hears its peers and answers KEDA, and nobody else, while
// the authority and all certificates are replaced under requests.
func TestMutualTLS(t *testing.T) {
	book, before, after := &addresses{}, mtlstest.NewAuthority(t), mtlstest.NewAuthority(t)
	stores := map[string]*mtls.Store{"a": mtls.New(nil), "b": mtls.New(nil)}
	target := pod(t, func(http.ResponseWriter, *http.Request) {})
	var nodes []*node
	var listen []int32
	for _, name := range []string{"a", "b"} {
		n, port := start(t, name, book, func(o *interceptor.Options) { o.TLS = stores[name] }), freePort(t)
		n.set(unpublished(service(port, api.ProtocolAuto, target)))
		n.synced()
		nodes, listen = append(nodes, n), append(listen, port)
	}
	n := nodes[0]
	n.applied()
	if n.status("/readyz") == http.StatusOK {
		t.Error("it is ready without a certificate")
	}
	if _, err := n.dialAs(kedaCredentials(t, before)).IsActive(t.Context(), scaledObject()); status.Code(err) != codes.Unavailable {
		t.Errorf("it answers without a certificate: %v", err)
	}
	set := func(a *mtlstest.Authority) {
		t.Helper()
		for _, s := range stores {
			if err := s.Set(serverFiles(a)); err != nil {
				t.Fatal(err)
			}
		}
	}
	set(before)
	for _, n := range nodes {
		n.setPeers("a", "b")
		n.waitReady()
	}
	keda := n.dialAs(kedaCredentials(t, before))
	stream, err := keda.StreamIsActive(t.Context(), scaledObject())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b hears a", func() bool { return follows(nodes[1]) })
	for name, c := range map[string]credentials.TransportCredentials{
		"plain text": insecure.NewCredentials(), "a foreign authority": kedaCredentials(t, after),
		"no certificate": credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}),
	} {
		if _, err := n.dialAs(c).IsActive(t.Context(), scaledObject()); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	before.Trusted, after.Trusted = []*mtlstest.Authority{after}, []*mtlstest.Authority{before}
	for _, a := range []*mtlstest.Authority{before, after, after} {
		set(a)
		if code, _ := get(t, url(listen[1], "/")); code != http.StatusOK {
			t.Errorf("a request gets %d", code)
		}
		if _, err := n.dialAs(kedaCredentials(t, a)).IsActive(t.Context(), scaledObject()); err != nil {
			t.Errorf("KEDA with the new certificate: %v", err)
		}
		if !active(t, keda) || !follows(nodes[1]) {
			t.Error("the first connections do not work any more")
		}
	}
}

// TestUnheardPeer: as long as there is an interceptor that speaks something else, as in an upgrade, no app with pods is called unused,
// since that one may have its requests. Without pods it sleeps on.
func TestUnheardPeer(t *testing.T) {
	book, ours := &addresses{}, mtlstest.NewAuthority(t)
	store := mtls.New(nil)
	if err := store.Set(serverFiles(ours)); err != nil {
		t.Fatal(err)
	}
	old := start(t, "old", book, nil)
	old.synced()
	n := start(t, "new", book, func(o *interceptor.Options) { o.TLS = store })
	s := unpublished(service(freePort(t), api.ProtocolAuto, pod(t, func(http.ResponseWriter, *http.Request) {})))
	s.Routes.Cooldown = api.Duration(50 * time.Millisecond)
	n.set(s)
	n.synced()
	n.waitReady()
	keda := n.dialAs(kedaCredentials(t, ours))
	eventually(t, "unused", func() bool { return !active(t, keda) })
	n.setPeers("new", "old")
	n.applied()
	for range 20 {
		if !active(t, keda) {
			t.Fatal("it is called unused beside a peer that is not heard")
		}
	}
	n.setPeers("new")
	eventually(t, "unused after the peer has gone", func() bool { return !active(t, keda) })
}
