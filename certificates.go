// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/certs"
	"github.com/scale-to-zero/scale-to-zero/injector/controller"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
)

// The ports of the interceptors' gRPC server. With TLS it has another one, so that each version of a client meets either a server that
// speaks the same or none. An upgrade between the two has both kinds of interceptors for a while. Nobody is put to sleep by mistake
// then: a new interceptor takes an app for active while there is a peer that it does not hear, none is ready before a new controller
// leads (see certs.Leaves), and that one makes KEDA ask new interceptors alone.
const (
	plainPort = "9090"
	tlsPort   = "9443"
)

// Defaults that two commands share: the names in the chart for a release called scale-to-zero.
const (
	defaultInterceptorSecret = "scale-to-zero-server-cert" //nolint:gosec // a name
	defaultKEDAName          = "scale-to-zero"
)

// internalFlags say by which certificates the controllers, the interceptors and KEDA recognize each other.
type internalFlags struct {
	mutualTLS                                      bool
	authority, interceptor, controller, kedaSecret string
	kedaNamespace, kedaName                        string
	life                                           time.Duration
}

func (i *internalFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&i.mutualTLS, "mutual-tls", true,
		"call the interceptors with TLS, and give KEDA a certificate for that; false is for a service mesh that does so itself")
	f.StringVar(&i.authority, "internal-authority-secret", "scale-to-zero-internal-authority",
		"Secret of the authority that issues the certificates of interceptors, controllers and KEDA with --certs-mode=self")
	f.StringVar(&i.interceptor, "interceptor-cert-secret", defaultInterceptorSecret, "Secret of the interceptors' certificate")
	f.StringVar(&i.controller, "controller-cert-secret", "scale-to-zero-client-cert", "Secret of the controllers' certificate")
	f.StringVar(&i.kedaSecret, "keda-cert-secret", "scale-to-zero-keda-cert",
		"Secret of KEDA's certificate in the namespace of scale-to-zero, from which it is copied for KEDA")
	f.StringVar(&i.kedaNamespace, "keda-namespace", "",
		"namespace in which KEDA reads the Secrets of ClusterTriggerAuthentications, normally its own; if it is empty, KEDA is not used")
	f.StringVar(&i.kedaName, "keda-authentication", defaultKEDAName,
		"ClusterTriggerAuthentication for KEDA, and its Secret in --keda-namespace, which has to exist")
	// For tests of rotations, for example `make drive-edges` with rotations each 30 s: SCALE_TO_ZERO_INTERNAL_CERT_LIFE=45s in the chart's
	// controller.extraEnv. A certificate is renewed after two thirds of its life, and an authority lasts for twenty lives.
	f.DurationVar(&i.life, "internal-cert-life", certs.LeafLife, "how long a certificate of interceptors, controllers and KEDA is valid")
	_ = f.MarkHidden("internal-cert-life") // it exists
}

func (i *internalFlags) check() error {
	return within("internal-cert-life", i.life, 30*time.Second, 10*certs.LeafLife)
}

// port returns the port of the interceptors' gRPC server.
func (i *internalFlags) port() string {
	if i.mutualTLS {
		return tlsPort
	}
	return plainPort
}

// internals are the parts of the controllers that the certificates concern.
type internals struct {
	leaves *certs.Leaves // nil in plain text
	store  *mtls.Store
	keda   kedaCredentials
}

// newInternals connects the certificates with those who use them.
func (f *controllerFlags) newInternals(mode certs.Mode, c kubernetes.Interface, reader client.Reader, log logr.Logger) (*internals, error) {
	in := &internals{store: mtls.New(nil), keda: kedaCredentials{changed: make(chan struct{}, 1)}}
	if !f.internal.mutualTLS {
		return in, nil
	}
	host, _, err := net.SplitHostPort(f.scalerAddress)
	if err != nil {
		return nil, fmt.Errorf("--scaler-address is %q; allowed is host:port", f.scalerAddress)
	}
	log = log.WithName("certs")
	in.leaves, err = certs.NewLeaves(certs.LeavesOptions{
		Mode: mode, Namespace: f.namespace, AuthoritySecret: f.internal.authority, Service: f.interceptorService, Life: f.internal.life,
		Deployment: f.deployment, Client: c, Reader: reader, Log: log,
		Leaves: []certs.Leaf{
			// KEDA verifies the name that it dials, and everybody else the identity.
			{Secret: f.internal.interceptor, DNSNames: []string{string(mtls.Interceptor), host}, Server: true},
			{Secret: f.internal.controller, DNSNames: []string{string(mtls.Controller)}, Use: func(p certs.Pair) {
				if err := in.store.Set(mtls.Files{Certificate: p.Certificate, Key: p.Key, Authorities: p.Authorities}); err != nil {
					log.Error(err, "The controllers' certificate cannot be used", "secret", f.internal.controller)
				}
			}},
			{Secret: f.internal.kedaSecret, DNSNames: []string{string(mtls.KEDA)}, Use: in.keda.set},
		},
	})
	return in, err
}

// options adds to o how the interceptors are called, and how KEDA gets its certificate.
func (in *internals) options(o *controller.Options, f *internalFlags) {
	if in.leaves == nil {
		return
	}
	o.TLS, o.Ready = in.store.Client(), in.store.Ready()
	o.KEDA = &controller.KEDAAccess{
		Namespace: f.kedaNamespace, Name: f.kedaName, Credentials: in.keda.get, Changed: in.keda.changed,
	}
}

// add has the manager renew the certificates.
func (in *internals) add(mgr ctrl.Manager) error {
	if in.leaves == nil {
		return nil
	}
	return mgr.Add(in.leaves)
}

// kedaCredentials is the present content of KEDA's Secret.
type kedaCredentials struct {
	changed chan struct{}

	mu   sync.Mutex // protects data
	data map[string][]byte
}

func (k *kedaCredentials) set(p certs.Pair) {
	k.mu.Lock()
	k.data = map[string][]byte{
		corev1.TLSCertKey: p.Certificate, corev1.TLSPrivateKeyKey: p.Key, corev1.ServiceAccountRootCAKey: p.Authorities,
	}
	k.mu.Unlock()
	select {
	case k.changed <- struct{}{}:
	default: // a change is already pending
	}
}

func (k *kedaCredentials) get() map[string][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.data
}
