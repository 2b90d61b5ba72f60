// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// recorder emits events, and remembers which writes are refused. It writes a new object for each event. client-go's recorder for
// events.k8s.io would not: it counts an event with the same reason as a repetition, and keeps the earlier note.
//
// +kubebuilder:rbac:groups="",resources=events,verbs=create
type recorder struct {
	client client.Client
	now    func() time.Time

	mu       sync.Mutex // protects refusals
	refusals map[types.NamespacedName]refusal
}

func newRecorder(c client.Client, now func() time.Time) *recorder {
	return &recorder{client: c, now: now, refusals: map[types.NamespacedName]refusal{}}
}

// emit writes the reports. If an event cannot be written, emit only logs that: nothing depends on events.
func (r *recorder) emit(ctx context.Context, reports ...injector.Report) {
	for _, report := range reports {
		for _, o := range report.Objects {
			err := r.write(ctx, report, o)
			if err != nil && (!report.Lasting || !apierrors.IsAlreadyExists(err)) {
				log.FromContext(ctx).Error(err, "Writing an event", "reason", report.Reason, "note", report.Note)
			}
		}
	}
}

func (r *recorder) write(ctx context.Context, report injector.Report, o client.Object) error {
	gvk, err := apiutil.GVKForObject(o, r.client.Scheme())
	if err != nil {
		return fmt.Errorf("naming the kind of %s: %w", client.ObjectKeyFromObject(o), err)
	}
	now := r.now()
	name := fmt.Sprintf("%s.%x", o.GetName(), now.UnixNano())
	if report.Lasting {
		sum := sha256.Sum256([]byte(string(o.GetUID()) + "\n" + report.Reason + "\n" + report.Note))
		name = o.GetName() + "." + hex.EncodeToString(sum[:8])
	}
	return r.client.Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: name},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(),
		},
		Type: report.Type, Reason: report.Reason, Message: report.Note,
		Source:         corev1.EventSource{Component: injector.ManagedBy},
		FirstTimestamp: metav1.NewTime(now), LastTimestamp: metav1.NewTime(now), Count: 1,
	})
}

// forget is for a Service or a workload that no longer waits for a write.
func (r *recorder) forget(about types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.refusals, about)
}
