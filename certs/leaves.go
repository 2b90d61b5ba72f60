// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// LeafLife is the default of LeavesOptions.Life.
const LeafLife = leafLife

// LeavesOptions configure Leaves.
type LeavesOptions struct {
	// Mode says who issues the certificates. Defaults to ModeSelf.
	Mode Mode
	// Namespace is where the Secrets are. Required.
	Namespace string
	// AuthoritySecret has the internal authority and its key. Nobody else may read it. Required in ModeSelf, otherwise unused.
	AuthoritySecret string
	// Service owns the Secrets that are made here, so that they go with it. Used in ModeSelf.
	Service string
	// Leaves are the certificates. With cert-manager, only those with a Use are read.
	Leaves []Leaf
	// Life is how long a leaf is valid. Defaults to LeafLife; the rest follows from it.
	Life time.Duration
	// Deployment, Client, Reader, Log and Resync are as in Options.
	Deployment string
	Client     kubernetes.Interface
	Reader     client.Reader
	Log        logr.Logger
	Resync     time.Duration
}

// Leaves keeps the certificates by which the parts of one installation recognize each other. Start does the work.
type Leaves struct {
	LeavesOptions

	lives  lives
	used   map[string]Pair // by Secret: what Use was last called with
	issued []*issuedLeaf   // in ModeCertManager
}

// NewLeaves returns Leaves; Start does the work.
func NewLeaves(o LeavesOptions) (*Leaves, error) {
	defaults := Options{Mode: o.Mode, Log: o.Log, Resync: o.Resync}
	defaults.setDefaults()
	o.Mode, o.Log, o.Resync = defaults.Mode, defaults.Log, defaults.Resync
	if o.Life <= 0 {
		o.Life = LeafLife
	}
	if err := check(o.Leaves); err != nil {
		return nil, fmt.Errorf("making internal certificates: %w", err)
	}
	if o.Client == nil || o.Namespace == "" || o.Mode == ModeSelf && o.AuthoritySecret == "" || o.Mode == ModeCertManager && o.Reader == nil {
		return nil, errors.New("making internal certificates: Client, Namespace and AuthoritySecret or Reader are required")
	}
	l := &Leaves{LeavesOptions: o, lives: livesOf(o.Life), used: map[string]Pair{}}
	for i := range o.Leaves {
		if o.Mode == ModeCertManager && o.Leaves[i].Use != nil {
			l.issued = append(l.issued, newIssuedLeaf(l, &l.Leaves[i]))
		}
	}
	return l, nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable. Only the leader writes, and only it calls interceptors.
//
// An upgrade from a version without these certificates depends on that: no new interceptor is ready, and so none gets traffic, before
// the new leader has begun. From then on neither the controllers nor KEDA ask an old interceptor, which cannot know what is in use at
// a new one.
func (l *Leaves) NeedLeaderElection() bool { return true }

// Start implements manager.Runnable. Until ctx is done, it renews what is due, and passes on what has changed.
func (l *Leaves) Start(ctx context.Context) error {
	return keepInSync(ctx, l.informers(), l.Resync, l.sync, func(err error, again time.Duration) {
		l.Log.Error(err, "Updating the internal certificates failed; trying again", "in", again.String())
	})
}

func (l *Leaves) informers() []cache.SharedIndexInformer {
	var all []cache.SharedIndexInformer
	if l.Mode == ModeSelf {
		all = append(all, secretInformer(l.Client, l.Namespace, l.AuthoritySecret))
	}
	for i := range l.Leaves {
		if l.Mode == ModeSelf || l.Leaves[i].Use != nil {
			all = append(all, secretInformer(l.Client, l.Namespace, l.Leaves[i].Secret))
		}
	}
	return all
}

// sync does everything that is due, and returns when to call it again.
func (l *Leaves) sync(ctx context.Context) (time.Time, error) {
	if l.Mode == ModeCertManager {
		return l.syncIssued(ctx)
	}
	authority, err := l.authority(ctx)
	if err != nil {
		return time.Time{}, err
	}
	due := authority.due(time.Now())
	for i := range l.Leaves {
		next, err := l.leaf(ctx, authority, &l.Leaves[i])
		if err != nil {
			return time.Time{}, err
		}
		if next.Before(due) {
			due = next
		}
	}
	return due, nil
}

// authority returns the internal authority, after everything that is due has been written.
func (l *Leaves) authority(ctx context.Context) (*internal, error) {
	now := time.Now()
	secret, err := l.secret(ctx, l.AuthoritySecret)
	if err != nil {
		return nil, err
	}
	reason := "the secret does not exist"
	var current, next *internal
	if secret != nil {
		var problem error
		if current, problem = parseInternal(secret.Data, l.lives, now); problem != nil {
			reason = problem.Error()
		}
	}
	switch {
	case current == nil:
		next, err = l.newInternal(ctx, now)
	case !now.Before(current.due(now)):
		reason = "the authority is near its end"
		next, err = current.successor(now)
	default:
		return current, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := next.data()
	if err != nil {
		return nil, err
	}
	if err := l.write(ctx, secret, l.AuthoritySecret, corev1.SecretTypeOpaque, data); err != nil {
		return nil, err
	}
	l.Log.Info("Made an internal authority", "secret", l.AuthoritySecret, "reason", reason, "notAfter", next.authorities[0].NotAfter)
	return next, nil
}

// newInternal makes a new authority, beside those that a leaf's Secret still has.
func (l *Leaves) newInternal(ctx context.Context, now time.Time) (*internal, error) {
	var trusted []byte
	for i := range l.Leaves {
		secret, err := l.secret(ctx, l.Leaves[i].Secret)
		if err != nil {
			return nil, err
		}
		if secret != nil && trusted == nil {
			trusted = secret.Data[keyBundle]
		}
	}
	return newInternal(trusted, l.lives, now)
}

// leaf brings a leaf's Secret up to date, and returns when that is due again.
func (l *Leaves) leaf(ctx context.Context, authority *internal, leaf *Leaf) (time.Time, error) {
	now := time.Now()
	secret, err := l.secret(ctx, leaf.Secret)
	if err != nil {
		return time.Time{}, err
	}
	var data map[string][]byte
	if secret != nil {
		data = secret.Data
	}
	next, reason, due, err := authority.next(leaf, data, now)
	if err != nil {
		return time.Time{}, err
	}
	if next != nil {
		if err := l.write(ctx, secret, leaf.Secret, corev1.SecretTypeTLS, next); err != nil {
			return time.Time{}, err
		}
		l.Log.Info("Renewed an internal certificate", "secret", leaf.Secret, "for", leaf.DNSNames[0], "reason", reason)
		data = next
		if _, _, due, err = authority.next(leaf, data, now); err != nil {
			return time.Time{}, err
		}
	}
	l.use(leaf, data)
	return due, nil
}

// use passes on the content of a leaf's Secret if it has changed.
func (l *Leaves) use(leaf *Leaf, data map[string][]byte) {
	next, last := Pair{data[keyLeaf], data[keyLeafKey], data[keyBundle]}, l.used[leaf.Secret]
	if leaf.Use == nil || bytes.Equal(next.Certificate, last.Certificate) && bytes.Equal(next.Key, last.Key) &&
		bytes.Equal(next.Authorities, last.Authorities) {
		return
	}
	l.used[leaf.Secret] = next
	leaf.Use(next)
}

// secret returns a Secret, or nil if it does not exist.
func (l *Leaves) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	secret, err := l.Client.CoreV1().Secrets(l.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("reading secret %s/%s: %w", l.Namespace, name, err)
	}
	return secret, nil
}

// write creates a Secret if secret is nil, and otherwise updates it. A conflict is an error like others: the next sync reads again.
func (l *Leaves) write(ctx context.Context, secret *corev1.Secret, name string, kind corev1.SecretType, data map[string][]byte) error {
	secrets := l.Client.CoreV1().Secrets(l.Namespace)
	if secret != nil {
		secret = secret.DeepCopy()
		secret.Data = data
		if _, err := secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("writing secret %s/%s: %w", l.Namespace, name, err)
		}
		return nil
	}
	owned, err := owners(ctx, l.Client, l.Namespace, l.Service)
	if err != nil {
		return err
	}
	_, err = secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: l.Namespace, OwnerReferences: owned,
			Labels: map[string]string{"app.kubernetes.io/managed-by": "scale-to-zero"},
		},
		Type: kind, Data: data,
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating secret %s/%s: %w", l.Namespace, name, err)
	}
	return nil
}
