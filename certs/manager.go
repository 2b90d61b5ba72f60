package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	admissioninformers "k8s.io/client-go/informers/admissionregistration/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Options says whose certificate is managed where.
type Options struct {
	// Namespace is where the Secret and the Service are. Required.
	Namespace string
	// SecretName is the Secret that all replicas share. It is created if it is not there. Required.
	SecretName string
	// Service is the webhook's Service, for which the certificate is valid. Required.
	Service string
	// WebhookConfiguration is the MutatingWebhookConfiguration whose webhooks get the CA. Required; it may come later.
	WebhookConfiguration string
	// Client reads and writes them. Required.
	Client kubernetes.Interface
	// Log is for what changes and what goes wrong. Defaults to one that discards everything.
	Log logr.Logger
	// Resync is how often everything is looked at though nothing was seen to change. Defaults to 10 minutes.
	Resync time.Duration
	// Attempts is how often Ensure tries. Defaults to 10, which takes about half a minute.
	Attempts int
}

func (o *Options) setDefaults() {
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

// Manager keeps a serving certificate in a Secret, serves it, and tells the API server the CA behind it. Replicas need
// no leader: each does what is due, and the Secret's resource version decides whose write counts.
type Manager struct {
	Options

	dnsNames []string
	leaf     atomic.Pointer[tls.Certificate] // what GetCertificate returns; written by sync alone
}

// Between two tries; doubled up to the longer one.
const (
	shortestPause = 250 * time.Millisecond
	longestPause  = 5 * time.Second
)

// shortestWait keeps Start from spinning whatever it is told.
const shortestWait = time.Second

// New returns a Manager that has done nothing yet.
func New(o Options) (*Manager, error) {
	o.setDefaults()
	for name, value := range map[string]string{
		"Namespace": o.Namespace, "SecretName": o.SecretName,
		"Service": o.Service, "WebhookConfiguration": o.WebhookConfiguration,
	} {
		if value == "" {
			return nil, fmt.Errorf("making a certificate manager: %s is required", name)
		}
	}
	if o.Client == nil {
		return nil, errors.New("making a certificate manager: Client is required")
	}
	host := o.Service + "." + o.Namespace + ".svc"
	return &Manager{Options: o, dnsNames: []string{host, host + ".cluster.local"}}, nil
}

// Ensure returns as soon as there is a certificate to serve. It tries a bounded number of times.
func (m *Manager) Ensure(ctx context.Context) error {
	pause := shortestPause
	for attempt := 1; ; attempt++ {
		_, err := m.sync(ctx)
		if m.leaf.Load() != nil {
			if err != nil {
				// Start goes on with it.
				m.Log.Error(err, "The API server does not know the webhook's CA yet")
			}
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

// Start implements manager.Runnable. Until ctx is done it renews what is due, takes over what other replicas renewed,
// and repairs the caBundle.
func (m *Manager) Start(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	stop, err := m.watch(ctx, changed)
	if err != nil {
		return err
	}
	defer stop()
	pause := shortestPause
	for {
		due, err := m.sync(ctx)
		next := max(min(time.Until(due), m.Resync), shortestWait)
		if err != nil && ctx.Err() == nil {
			m.Log.Error(err, "Keeping the webhook's certificate failed, trying again", "in", pause.String())
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

// GetCertificate is for a tls.Config.
func (m *Manager) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	leaf := m.leaf.Load()
	if leaf == nil {
		return nil, errors.New("getting the serving certificate: there is none yet")
	}
	return leaf, nil
}

// ReadyCheck is a healthz.Checker.
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

// sync does once what is to be done, and returns when there will be more.
func (m *Manager) sync(ctx context.Context) (time.Time, error) {
	config, err := m.webhookConfiguration(ctx)
	if err != nil {
		return time.Time{}, err
	}
	id, err := m.settle(ctx, config)
	if err != nil {
		return time.Time{}, err
	}
	// The CA is published before anything that it signed is served, but having nothing to serve helps nobody.
	err = m.publish(ctx, config, id.bundle())
	if served := m.leaf.Load(); err == nil || served == nil || !time.Now().Before(served.Leaf.NotAfter) {
		m.leaf.Store(id.leaf)
	}
	return id.due(), err
}

// settle returns what the Secret holds after everything that is due was done to it, by this replica or another.
func (m *Manager) settle(ctx context.Context, config *admissionv1.MutatingWebhookConfiguration) (*identity, error) {
	// Three changes can be due at once: all of it, then an authority, then a leaf. The rest is for lost races.
	const rounds = 8
	for range rounds {
		secrets := m.Client.CoreV1().Secrets(m.Namespace)
		secret, err := secrets.Get(ctx, m.SecretName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			secret = nil
		} else if err != nil {
			return nil, fmt.Errorf("reading secret %s/%s: %w", m.Namespace, m.SecretName, err)
		}
		current, next, reason, err := m.plan(secret, config, time.Now())
		if err != nil {
			return nil, err
		}
		if next == nil {
			return current, nil
		}
		err = m.write(ctx, secret, next)
		switch {
		case err == nil:
			m.Log.Info("Renewed the webhook's certificate", "secret", m.SecretName, "reason", reason,
				"notAfter", next.leaf.Leaf.NotAfter, "authorityNotAfter", next.authorities[0].NotAfter)
		case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
			m.Log.V(1).Info("Another replica was first to write the webhook's certificate", "secret", m.SecretName)
		default:
			return nil, fmt.Errorf("writing secret %s/%s: %w", m.Namespace, m.SecretName, err)
		}
	}
	return nil, fmt.Errorf("writing secret %s/%s: it changed each of %d times", m.Namespace, m.SecretName, rounds)
}

// plan returns what secret holds, and what it has to hold instead, if anything, and why.
func (m *Manager) plan(
	secret *corev1.Secret, config *admissionv1.MutatingWebhookConfiguration, now time.Time,
) (current, next *identity, reason string, err error) {
	if secret == nil {
		next, err = newIdentity(trusted(config), m.dnsNames, now)
		return nil, next, "the secret does not exist", err
	}
	current, problem := parseIdentity(secret.Data, m.dnsNames, now)
	if problem != nil {
		next, err = newIdentity(trusted(config), m.dnsNames, now)
		return nil, next, problem.Error(), err
	}
	next, reason, err = current.next(m.dnsNames, published(config, current.bundle()), now)
	return current, next, reason, err
}

// write creates the Secret if there was none, or else replaces what was read of it.
func (m *Manager) write(ctx context.Context, secret *corev1.Secret, id *identity) error {
	data, err := id.data()
	if err != nil {
		return err
	}
	secrets := m.Client.CoreV1().Secrets(m.Namespace)
	if secret != nil {
		secret = secret.DeepCopy()
		secret.Data = data
		_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
		return err // settle tells conflicts from failures, and wraps those
	}
	owners, err := m.owners(ctx)
	if err != nil {
		return err
	}
	_, err = secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: m.SecretName, Namespace: m.Namespace, OwnerReferences: owners,
			Labels: map[string]string{"app.kubernetes.io/managed-by": "scale-to-zero"},
		},
		Type: corev1.SecretTypeTLS,
		Data: data,
	}, metav1.CreateOptions{})
	return err
}

// owners has the Secret go when the Service goes: an uninstallation knows nothing of the Secret.
func (m *Manager) owners(ctx context.Context) ([]metav1.OwnerReference, error) {
	service, err := m.Client.CoreV1().Services(m.Namespace).Get(ctx, m.Service, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading service %s/%s: %w", m.Namespace, m.Service, err)
	}
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: service.Name, UID: service.UID}}, nil
}

// webhookConfiguration returns nil if there is none.
func (m *Manager) webhookConfiguration(ctx context.Context) (*admissionv1.MutatingWebhookConfiguration, error) {
	config, err := m.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().
		Get(ctx, m.WebhookConfiguration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil // there is nothing to publish to, which is no failure
	}
	if err != nil {
		return nil, fmt.Errorf("reading webhook configuration %s: %w", m.WebhookConfiguration, err)
	}
	return config, nil
}

// published says that every webhook of config, if there is one, is verified by bundle.
func published(config *admissionv1.MutatingWebhookConfiguration, bundle []byte) bool {
	if config == nil {
		return true
	}
	for i := range config.Webhooks {
		if !bytes.Equal(config.Webhooks[i].ClientConfig.CABundle, bundle) {
			return false
		}
	}
	return true
}

// trusted is what the API server trusts at the moment.
func trusted(config *admissionv1.MutatingWebhookConfiguration) []byte {
	if config == nil || len(config.Webhooks) == 0 {
		return nil
	}
	return config.Webhooks[0].ClientConfig.CABundle
}

// publish has the API server verify every webhook of config by bundle. It touches no other field, and fails if config
// is no longer what was read.
func (m *Manager) publish(ctx context.Context, config *admissionv1.MutatingWebhookConfiguration, bundle []byte) error {
	if published(config, bundle) {
		return nil
	}
	type clientConfig struct {
		CABundle []byte `json:"caBundle"`
	}
	type webhook struct {
		Name         string       `json:"name"` // by which the API server merges the list
		ClientConfig clientConfig `json:"clientConfig"`
	}
	webhooks := make([]webhook, 0, len(config.Webhooks))
	for i := range config.Webhooks {
		webhooks = append(webhooks, webhook{config.Webhooks[i].Name, clientConfig{bundle}})
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": config.ResourceVersion},
		"webhooks": webhooks,
	})
	if err != nil {
		return fmt.Errorf("encoding the patch of webhook configuration %s: %w", config.Name, err)
	}
	_, err = m.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().
		Patch(ctx, config.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patching the caBundle of webhook configuration %s: %w", config.Name, err)
	}
	m.Log.Info("Told the API server the CA of the webhook", "configuration", config.Name)
	return nil
}

// watch sends to changed whenever the Secret or the webhook configuration changes, until stop, which returns when the
// watches have ended.
func (m *Manager) watch(ctx context.Context, changed chan<- struct{}) (stop func(), err error) {
	only := func(name string) func(*metav1.ListOptions) {
		return func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		}
	}
	informers := []cache.SharedIndexInformer{
		coreinformers.NewFilteredSecretInformer(m.Client, m.Namespace, 0, nil, only(m.SecretName)),
		admissioninformers.NewFilteredMutatingWebhookConfigurationInformer(m.Client, 0, nil, only(m.WebhookConfiguration)),
	}
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // one is waiting already
		}
	}
	for _, informer := range informers {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notify() },
			UpdateFunc: func(any, any) { notify() },
			DeleteFunc: func(any) { notify() },
		})
		if err != nil {
			return nil, fmt.Errorf("watching the webhook's certificate: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, informer := range informers {
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	return func() { cancel(); running.Wait() }, nil
}

// wait returns after d or when something is received, and false when ctx is done.
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
