// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// Reasons of the events that tell an app's story. WakeRequested comes from the interceptors.
const (
	reasonInjected  = "Injected"
	reasonSkipped   = "InjectionSkipped"
	reasonRestoring = "Restoring"
	reasonRestored  = "Restored"
	reasonAwake     = "Awake"
	reasonAsleep    = "Asleep"
	// An app cannot start, and its clients are told so.
	reasonStartFailed = "StartFailed"
	// Things to know while an app is taken over.
	reasonNoInterceptor = "NoInterceptor"
	reasonSiblings      = "ServiceNotOptedIn"
	reasonForbidden     = "WorkloadForbidden"
	reasonUnvisited     = "NoVisitorYet"
	reasonAnnotation    = "AnnotationNotRewritten"
	reasonRefused       = "WriteRefused"
	reasonAccepted      = "WriteAccepted"
	// The owner of a ScaledObject has paused it, or has changed what is ours.
	reasonPaused        = "Paused"
	reasonResumed       = "Resumed"
	reasonUndone        = "ScaledObjectReset"
	reasonAffinity      = "AffinityLost"
	reasonClientAddress = "ClientAddress"
)

// storyteller writes events, a lasting state of a Service only once. It writes each as an object of its own: client-go's
// recorders count an event with the reason of an earlier one as that one again, and keep the earlier one's note.
type storyteller struct {
	client client.Client
	now    func() time.Time

	mu       sync.Mutex // protects all below
	last     map[told]string
	waits    map[types.NamespacedName]waiting
	refusals map[types.NamespacedName]refusal
}

// waiting is what a Service waits for, and since when.
type waiting struct {
	reason string
	since  time.Time
}

// told is what tellOnce has told: of which Service, and which kind of thing.
type told struct {
	service types.NamespacedName
	reason  string
}

func newStoryteller(c client.Client, now func() time.Time) *storyteller {
	return &storyteller{
		client: c, now: now,
		last: map[told]string{}, waits: map[types.NamespacedName]waiting{}, refusals: map[types.NamespacedName]refusal{},
	}
}

// tell writes an event on each of the objects that is not nil. An event that cannot be written is logged: the story is
// no reason to stop it.
func (s *storyteller) tell(ctx context.Context, eventType, reason, note string, objects ...client.Object) {
	for _, o := range objects {
		if o == nil {
			continue
		}
		if err := s.write(ctx, eventType, reason, note, o); err != nil {
			log.FromContext(ctx).Error(err, "Writing an event", "reason", reason, "note", note)
		}
	}
}

func (s *storyteller) write(ctx context.Context, eventType, reason, note string, o client.Object) error {
	return s.writeNamed(ctx, fmt.Sprintf("%s.%x", o.GetName(), s.now().UnixNano()), eventType, reason, note, o)
}

func (s *storyteller) writeNamed(ctx context.Context, name, eventType, reason, note string, o client.Object) error {
	gvk, err := apiutil.GVKForObject(o, s.client.Scheme())
	if err != nil {
		return fmt.Errorf("naming the kind of %s: %w", client.ObjectKeyFromObject(o), err)
	}
	now := s.now()
	return s.client.Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: name},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(),
		},
		Type: eventType, Reason: reason, Message: note,
		Source:         corev1.EventSource{Component: injector.ManagedBy},
		FirstTimestamp: metav1.NewTime(now), LastTimestamp: metav1.NewTime(now), Count: 1,
	})
}

// tellOnce emits an event on the Service and on also, unless it repeats the last note that tellOnce emitted on that Service
// for that reason.
func (s *storyteller) tellOnce(ctx context.Context, eventType, reason, note string, service *corev1.Service, also ...client.Object) {
	key := told{client.ObjectKeyFromObject(service), reason}
	s.mu.Lock()
	known := s.last[key] == note
	s.last[key] = note
	s.mu.Unlock()
	if !known {
		s.tell(ctx, eventType, reason, note, append([]client.Object{service}, also...)...)
	}
}

// ended says whether tellOnce has told something of the Service for that reason, and makes the next tellOnce tell.
func (s *storyteller) ended(service types.NamespacedName, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := told{service, reason}
	_, known := s.last[key]
	delete(s.last, key)
	return known
}

// waited says for how long the Service has waited for one thing: since the first call with that reason.
func (s *storyteller) waited(service types.NamespacedName, reason string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waits[service].reason != reason {
		s.waits[service] = waiting{reason: reason, since: s.now()}
	}
	return s.now().Sub(s.waits[service].since)
}

// forget makes the next tellOnce of the Service tell, and what it waits for begin anew.
func (s *storyteller) forget(service types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waits, service)
	delete(s.refusals, service)
	maps.DeleteFunc(s.last, func(key told, _ string) bool { return key.service == service })
}
