// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// warnOfFront reports what the proxies in front of the Service can no longer do for it: keep a client at one pod, and show
// the client's address to the pods.
func (r *ServiceReconciler) warnOfFront(ctx context.Context, service *corev1.Service, e entrance, ingresses backing, routes api.Routes, v verdict) {
	through := ingresses.optedIn
	if !e.alias {
		through = ingresses.to(service.Name)
		note, lost := injector.ClientAddress(service, routes)
		eventType := corev1.EventTypeNormal
		if lost {
			eventType = corev1.EventTypeWarning
		}
		r.stories.report(ctx, eventType, reasonClientAddress, note, service)
	}
	r.stories.report(ctx, corev1.EventTypeWarning, reasonAffinity, injector.AffinityLost(service, through, v.settings, v.workload), service)
}

// to are the Ingresses that send traffic to the Service itself.
func (b backing) to(service string) []*networkingv1.Ingress {
	var found []*networkingv1.Ingress
	for i := range b.all {
		if _, now := injector.Backends(&b.all[i]); slices.Contains(now, service) {
			found = append(found, &b.all[i])
		}
	}
	return found
}

// report emits an event about a lasting state of a Service, once; an empty note says that the state has ended. The event's
// name follows from what it says, so that a controller that has just started does not repeat it while it is there.
func (s *storyteller) report(ctx context.Context, eventType, reason, note string, service *corev1.Service) {
	key := told{client.ObjectKeyFromObject(service), reason}
	if note == "" {
		s.ended(key.service, reason)
		return
	}
	s.mu.Lock()
	known := s.last[key] == note
	s.last[key] = note
	s.mu.Unlock()
	if known {
		return
	}
	sum := sha256.Sum256([]byte(string(service.UID) + "\n" + reason + "\n" + note))
	name := service.Name + "." + hex.EncodeToString(sum[:8])
	if err := s.writeNamed(ctx, name, eventType, reason, note, service); err != nil && !apierrors.IsAlreadyExists(err) {
		log.FromContext(ctx).Error(err, "Writing an event", "reason", reason, "note", note)
	}
}
