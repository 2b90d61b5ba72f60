// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// KEDAAccess is how KEDA authenticates itself to the interceptors: by a Secret that only KEDA reads, in its own namespace, and a
// ClusterTriggerAuthentication that names it. A TriggerAuthentication in each namespace would put the key into the hands of tenants.
type KEDAAccess struct {
	// Namespace is where KEDA reads the Secrets of ClusterTriggerAuthentications; empty if that is not known.
	Namespace string
	// Name is that of both objects. The chart makes the Secret, so that the controllers need no right to create any there.
	Name string
	// Credentials returns the Secret's content, nil as long as there is none. Changed has an element when it changes.
	Credentials func() map[string][]byte
	Changed     <-chan struct{}
	// Every is how often the objects are looked at. Default 10 s. Lag is how long KEDA may take to notice a change of the Secret. Default
	// 3 s. Patience is how long there may be no credentials before KEDA is not used. Default 1 min.
	Every, Lag, Patience time.Duration
}

func (a *KEDAAccess) setDefaults() {
	a.Every = cmp.Or(a.Every, 10*time.Second)
	a.Lag = cmp.Or(a.Lag, 3*time.Second)
	a.Patience = cmp.Or(a.Patience, time.Minute)
}

// The keys of the Secret, and the parameters of KEDA's external scaler to which they belong.
func kedaParameters() map[string]string {
	return map[string]string{
		"caCert": corev1.ServiceAccountRootCAKey, "tlsClientCert": corev1.TLSCertKey, "tlsClientKey": corev1.TLSPrivateKeyKey,
	}
}

// kedaAccess keeps the objects by which KEDA authenticates itself up to date, and decides whether KEDA can be used. It may get and
// patch that one Secret, by a Role in KEDA's namespace.
//
// +kubebuilder:rbac:groups=keda.sh,resources=clustertriggerauthentications,verbs=get;create;patch
type kedaAccess struct {
	KEDAAccess

	address    string
	state      *kedaState
	client     client.Client
	live       client.Reader // the cache would hold all Secrets
	log        logr.Logger
	events     *recorder
	deployment client.ObjectKey
	now        func() time.Time
	arrived    chan struct{} // has an element when KEDA was installed
	// When what concerns all of them has changed, planAll has each workload planned again, and services gets each ScaledObject.
	planAll  func()
	services chan event.TypedGenericEvent[*keda.ScaledObject]

	since time.Time // when KEDA was there and credentials were missing
}

// unusableError says why KEDA cannot be used until somebody does something about it.
type unusableError struct{ reason string }

func (e *unusableError) Error() string { return e.reason }

// Start implements manager.Runnable.
func (a *kedaAccess) Start(ctx context.Context) error {
	tick := time.NewTicker(a.Every)
	defer tick.Stop()
	for {
		a.step(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-a.Changed:
		case <-a.arrived:
		}
	}
}

// step delivers what is missing, and notes whether KEDA can be used.
func (a *kedaAccess) step(ctx context.Context) {
	if !a.state.installed() {
		a.since = time.Time{}
		return
	}
	version, err := a.deliver(ctx)
	unusable, final := errors.AsType[*unusableError](err)
	switch {
	case err == nil:
		if a.state.accept(injector.Scaler{Address: a.address, Authentication: a.Name, Credentials: version}) {
			a.log.Info("KEDA can authenticate itself to the interceptors: it scales", "secret", a.Namespace+"/"+a.Name, "credentials", version)
			a.tellAll(ctx)
		}
	case final:
		reason := "KEDA cannot authenticate itself to the interceptors: " + unusable.reason
		if a.state.refuse(reason) {
			a.log.Info("Scaling without KEDA, which is installed", "reason", reason)
			a.report(ctx, reason)
			a.tellAll(ctx)
		}
	case ctx.Err() == nil: // what KEDA has is good for a while
		a.log.Error(err, "Delivering KEDA's credentials failed; trying again")
	}
}

// deliver brings both objects up to date, and returns a name for what the Secret contains.
func (a *kedaAccess) deliver(ctx context.Context) (version string, _ error) {
	data := a.Credentials()
	switch {
	case a.Namespace == "":
		return "", &unusableError{"the namespace of KEDA was not known when scale-to-zero's chart was installed. If KEDA has been installed " +
			"since, run helm upgrade of scale-to-zero once more, with the same values: Helm finds the namespace. Where charts are rendered " +
			"without a cluster, set the chart's value keda.namespace to it"}
	case data == nil && a.since.IsZero():
		a.since = a.now()
		fallthrough
	case data == nil && a.now().Sub(a.since) < a.Patience:
		return "", errors.New("there is no certificate for KEDA yet")
	case data == nil:
		return "", &unusableError{"there is no certificate for it yet; see the log and the events of the controllers about certificates"}
	}
	a.since = time.Time{}
	written, err := a.writeSecret(ctx, data)
	if err != nil {
		return "", err
	}
	if err := a.writeAuthentication(ctx); err != nil {
		return "", err
	}
	if written {
		// KEDA reads from its cache when a ScaledObject changes. If it were not up to date by then, KEDA would go on with what it had.
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(a.Lag):
		}
	}
	return versionOf(data), nil
}

// versionOf returns a name for credentials: the same for the same ones.
func versionOf(data map[string][]byte) string {
	sum := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(data)) {
		_, _ = sum.Write(data[key]) // never fails
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}

// writeSecret brings the Secret up to date, and reports whether it was not.
func (a *kedaAccess) writeSecret(ctx context.Context, data map[string][]byte) (written bool, _ error) {
	key := client.ObjectKey{Namespace: a.Namespace, Name: a.Name}
	var secret corev1.Secret
	err := a.live.Get(ctx, key, &secret)
	if err == nil && maps.EqualFunc(secret.Data, data, slices.Equal) {
		return false, nil
	}
	if err == nil {
		before := secret.DeepCopy()
		secret.Data = data
		err = a.client.Patch(ctx, &secret, client.MergeFrom(before))
	}
	again := "run helm upgrade again with the chart's value keda.namespace set to the namespace that KEDA runs in"
	switch {
	case apierrors.IsNotFound(err):
		return false, &unusableError{fmt.Sprintf("Secret %s does not exist; %s", key, again)}
	case apierrors.IsForbidden(err):
		return false, &unusableError{fmt.Sprintf("the controllers may not write Secret %s; %s", key, again)}
	case err != nil:
		return false, fmt.Errorf("writing secret %s: %w", key, err)
	}
	a.log.Info("Gave KEDA its certificate for the interceptors", "secret", key.String())
	return true, nil
}

// writeAuthentication brings the ClusterTriggerAuthentication up to date.
func (a *kedaAccess) writeAuthentication(ctx context.Context) error {
	want := a.authentication()
	have := newUnstructured(keda.GroupVersion().WithKind(keda.ClusterTriggerAuthenticationKind))
	err := a.live.Get(ctx, client.ObjectKey{Name: a.Name}, have)
	switch {
	case err == nil && equality.Semantic.DeepEqual(have.Object["spec"], want["spec"]):
		return nil
	case err == nil:
		before := have.DeepCopy()
		have.Object["spec"] = want["spec"]
		err = a.client.Patch(ctx, have, client.MergeFrom(before), client.FieldOwner(injector.ManagedBy))
	case apierrors.IsNotFound(err):
		have.SetName(a.Name)
		have.SetLabels(map[string]string{injector.ManagedByLabel: injector.ManagedBy})
		have.Object["spec"] = want["spec"]
		err = a.client.Create(ctx, have, client.FieldOwner(injector.ManagedBy))
	}
	switch {
	case apierrors.IsForbidden(err):
		return &unusableError{fmt.Sprintf("the controllers may not write ClusterTriggerAuthentication %s: %v", a.Name, err)}
	case meta.IsNoMatchError(err):
		return &unusableError{"this KEDA has no ClusterTriggerAuthentications"}
	case err != nil:
		return fmt.Errorf("writing clustertriggerauthentication %s: %w", a.Name, err)
	}
	return nil
}

// authentication returns the content of the ClusterTriggerAuthentication.
func (a *kedaAccess) authentication() map[string]any {
	parameters := kedaParameters()
	var refs []any
	for _, parameter := range slices.Sorted(maps.Keys(parameters)) {
		refs = append(refs, map[string]any{"parameter": parameter, "name": a.Name, "key": parameters[parameter]})
	}
	return map[string]any{"spec": map[string]any{"secretTargetRef": refs}}
}

// report says on the controllers' Deployment why KEDA is not used. Each reason is said once, by whichever controller leads.
func (a *kedaAccess) report(ctx context.Context, reason string) {
	if a.deployment.Name == "" {
		return
	}
	var own appsv1.Deployment
	if err := a.client.Get(ctx, a.deployment, &own); err != nil {
		a.log.Error(err, "Finding the Deployment for an event failed", "deployment", a.deployment.String())
		return
	}
	a.events.emit(ctx, injector.Report{
		Type: corev1.EventTypeWarning, Reason: injector.ReasonWithoutKEDA, Lasting: true, Objects: []injector.Object{&own},
		Note: "Scaling without KEDA, which is installed: " + reason,
	})
}

// tellAll has every workload, and every Service with a ScaledObject, planned again.
func (a *kedaAccess) tellAll(ctx context.Context) {
	a.planAll()
	var all keda.ScaledObjectList
	if err := a.client.List(ctx, &all); err != nil {
		a.log.Error(err, "Listing the ScaledObjects failed")
		return
	}
	for i := range all.Items {
		so := &all.Items[i]
		select {
		case a.services <- event.TypedGenericEvent[*keda.ScaledObject]{Object: so}:
		case <-ctx.Done():
			return
		}
	}
}

// removeAuthentication deletes the ClusterTriggerAuthentication of that name, if it exists. The Secret belongs to the chart.
func removeAuthentication(ctx context.Context, c client.Client, name string) error {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(keda.GroupVersion().WithKind(keda.ClusterTriggerAuthenticationKind))
	object.SetName(name)
	if err := c.Delete(ctx, object); client.IgnoreNotFound(err) != nil && !meta.IsNoMatchError(err) {
		return fmt.Errorf("deleting clustertriggerauthentication %s: %w", name, err)
	}
	return nil
}
