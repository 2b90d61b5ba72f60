// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Mode says who issues the certificate.
type Mode string

const (
	// ModeSelf makes the replicas maintain their own CA, and write it to the webhook configuration.
	ModeSelf Mode = "self"
	// ModeCertManager makes the replicas serve what cert-manager writes to the Secret. cert-manager's cainjector writes the CA to the
	// webhook configuration.
	ModeCertManager Mode = "cert-manager"
)

// ParseMode returns the mode with that name.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case ModeSelf, ModeCertManager:
		return m, nil
	default:
		return "", fmt.Errorf("%q; allowed are %s and %s", s, ModeSelf, ModeCertManager)
	}
}

// Options configure a Manager.
type Options struct {
	// Mode says who issues the certificate. Defaults to ModeSelf.
	Mode Mode
	// Namespace is where the Secret and the Service are. Required.
	Namespace string
	// SecretName is the Secret that all replicas share. In ModeSelf it is created if it does not exist. Required.
	SecretName string
	// Service is the webhook's Service. The certificate is valid for its name. Required.
	Service string
	// WebhookConfiguration is the MutatingWebhookConfiguration whose webhooks get the CA. It may be created later. Required in ModeSelf,
	// otherwise unused.
	WebhookConfiguration string
	// Deployment is the controllers' Deployment. Events about a missing certificate are emitted on it. Used in ModeCertManager; if it is
	// empty, there are no events.
	Deployment string
	// Client reads these objects, and in ModeSelf writes them. Required.
	Client kubernetes.Interface
	// Reader reads cert-manager's Certificates and issuers, to say why a certificate is missing. Required in ModeCertManager.
	Reader client.Reader
	// Log gets changes and failures. Defaults to a logger that discards everything.
	Log logr.Logger
	// Resync is how often everything is checked even without a change. Defaults to 10 minutes.
	Resync time.Duration
	// Attempts is how often Ensure tries. Defaults to 10, which takes about half a minute.
	Attempts int
}

func (o *Options) setDefaults() {
	if o.Mode == "" {
		o.Mode = ModeSelf
	}
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	if o.Resync <= 0 {
		o.Resync = 10 * time.Minute
	}
	if o.Attempts <= 0 {
		o.Attempts = 10
	}
}

// host returns the name by which the API server calls the webhook.
func (o *Options) host() string { return o.Service + "." + o.Namespace + ".svc" }

// source is where the certificate comes from: the part that differs between the modes.
type source interface {
	// sync does everything that is due. It returns the certificate to serve from now on, or nil to keep served, and when to call sync
	// again. served is nil at first. sync is never called concurrently.
	sync(ctx context.Context, served *tls.Certificate) (leaf *tls.Certificate, due time.Time, err error)
	// informers report when to call sync earlier than that.
	informers() []cache.SharedIndexInformer
}

// Manager serves the certificate in a Secret, and follows its renewals. Every replica has one.
type Manager struct {
	Options

	source source
	leaf   atomic.Pointer[tls.Certificate] // what GetCertificate returns; only sync writes it
}

// The pause between two attempts doubles, from shortestPause to longestPause.
const (
	shortestPause = 250 * time.Millisecond
	longestPause  = 5 * time.Second
)

// shortestWait keeps Start from spinning, whatever sync returns.
const shortestWait = time.Second

// New returns a Manager; Ensure and Start do the work.
func New(o Options) (*Manager, error) {
	o.setDefaults()
	if _, err := ParseMode(string(o.Mode)); err != nil {
		return nil, fmt.Errorf("making a certificate manager: the mode is %w", err)
	}
	required := map[string]string{"Namespace": o.Namespace, "SecretName": o.SecretName, "Service": o.Service}
	if o.Mode == ModeSelf {
		required["WebhookConfiguration"] = o.WebhookConfiguration
	}
	for name, value := range required {
		if value == "" {
			return nil, fmt.Errorf("making a certificate manager: %s is required", name)
		}
	}
	if o.Client == nil || o.Mode == ModeCertManager && o.Reader == nil {
		return nil, errors.New("making a certificate manager: Client is required, and with cert-manager Reader")
	}
	m := &Manager{Options: o}
	if o.Mode == ModeCertManager {
		m.source = &certManager{Options: &m.Options}
	} else {
		m.source = newSelfManaged(&m.Options)
	}
	return m, nil
}

// Ensure blocks until there is a certificate to serve. It tries a bounded number of times. With cert-manager it returns at once, and
// Start waits for the certificate.
func (m *Manager) Ensure(ctx context.Context) error {
	pause := shortestPause
	for attempt := 1; ; attempt++ {
		_, err := m.sync(ctx)
		if err == nil {
			return nil
		}
		if m.leaf.Load() != nil {
			// Start tries again.
			m.Log.Error(err, "The API server does not know the webhook's CA yet")
			return nil
		}
		if attempt == m.Attempts {
			return fmt.Errorf("getting a serving certificate, tried %d times: %w", attempt, err)
		}
		if !wait(ctx, nil, pause) {
			return fmt.Errorf("getting a serving certificate: %w", errors.Join(ctx.Err(), err))
		}
		pause = min(2*pause, longestPause)
	}
}

// Start implements manager.Runnable. Until ctx is done, it renews what is due, and serves what others have renewed.
func (m *Manager) Start(ctx context.Context) error {
	return keepInSync(ctx, m.source.informers(), m.Resync, m.sync, func(err error, again time.Duration) {
		m.Log.Error(err, "Updating the webhook's certificate failed; trying again", "in", again.String())
	})
}

// keepInSync calls sync whenever it is due, something changes or the last call has failed, until ctx is done.
func keepInSync(ctx context.Context, informers []cache.SharedIndexInformer, resync time.Duration,
	sync func(context.Context) (time.Time, error), failed func(err error, again time.Duration),
) error {
	changed := make(chan struct{}, 1)
	stop, err := watch(ctx, informers, changed)
	if err != nil {
		return err
	}
	defer stop()
	pause := shortestPause
	for {
		due, err := sync(ctx)
		next := max(min(time.Until(due), resync), shortestWait)
		if err != nil && ctx.Err() == nil {
			failed(err, pause)
			next = pause
			pause = min(2*pause, longestPause)
		} else {
			pause = shortestPause
		}
		if !wait(ctx, changed, next) {
			return nil
		}
	}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica serves.
func (m *Manager) NeedLeaderElection() bool { return false }

// GetCertificate implements tls.Config.GetCertificate.
func (m *Manager) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	leaf := m.leaf.Load()
	if leaf == nil {
		return nil, errors.New("getting the serving certificate: there is none yet")
	}
	return leaf, nil
}

// ReadyCheck is a healthz.Checker. It fails while there is no valid certificate.
func (m *Manager) ReadyCheck(*http.Request) error {
	leaf := m.leaf.Load()
	if leaf == nil {
		return errors.New("checking the serving certificate: there is none yet")
	}
	if end := leaf.Leaf.NotAfter; !time.Now().Before(end) {
		return fmt.Errorf("checking the serving certificate: it expired at %s", end.Format(time.RFC3339))
	}
	return nil
}

// sync does everything that is due, and returns when to call it again.
func (m *Manager) sync(ctx context.Context) (time.Time, error) {
	leaf, due, err := m.source.sync(ctx, m.leaf.Load())
	if leaf != nil {
		m.leaf.Store(leaf)
	}
	return due, err
}

// secretInformer watches a Secret.
func secretInformer(c kubernetes.Interface, namespace, name string) cache.SharedIndexInformer {
	return coreinformers.NewFilteredSecretInformer(c, namespace, 0, nil, only(name))
}

// only restricts a list and a watch to one object. Our roles allow no more.
func only(name string) func(*metav1.ListOptions) {
	return func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	}
}

// watch sends to changed whenever an informer sees a change. Its stop function ends the watches and waits for their end.
func watch(ctx context.Context, informers []cache.SharedIndexInformer, changed chan<- struct{}) (stop func(), err error) {
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // a notification is already pending
		}
	}
	for _, informer := range informers {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notify() },
			UpdateFunc: func(any, any) { notify() },
			DeleteFunc: func(any) { notify() },
		})
		if err != nil {
			return nil, fmt.Errorf("watching certificates: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, informer := range informers {
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	return func() { cancel(); running.Wait() }, nil
}

// wait returns true after d or when changed has an element, and false when ctx is done.
func wait(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-timer.C:
	}
	return true
}
