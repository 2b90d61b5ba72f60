// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/notice"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

const (
	component = "scale-to-zero-interceptor"
	reason    = "WakeRequested"
	// maxQueued is how many events may wait to be written. Further ones are dropped.
	maxQueued    = 1024
	writeTimeout = 10 * time.Second
	// writeDelay is how long an event waits before it is written. It is about a start, which needs the API server more urgently.
	writeDelay = 500 * time.Millisecond
	// flushTimeout bounds the writing of the events that still wait at the end.
	flushTimeout = 2 * time.Second
)

// recorder writes events, one after the other, in its own goroutine. client-go's recorders would count, rename and repeat them. These
// events have names of their own, so that all interceptors together write one.
type recorder struct {
	client  kubernetes.Interface
	options Options
	queue   chan happened
}

// happened is a story and the time when it happened.
type happened struct {
	story story
	at    time.Time
}

// story is the content of two events: one on the Service, where its users look, and one on the workload.
type story struct {
	namespace, service, serviceUID string
	workload                       api.Workload
	eventType, reason, message     string
	// id is the last part of the events' names. All interceptors with the same content have the same id, so all but the first find their
	// events already written.
	id string
}

func newRecorder(client kubernetes.Interface, o Options) *recorder {
	return &recorder{client: client, options: o, queue: make(chan happened, maxQueued)}
}

// WakeRequested implements scaler.Events.
func (c *Cluster) WakeRequested(w scaler.Wake) {
	c.events.add(story{
		namespace: w.Namespace, service: w.Service, serviceUID: w.ServiceUID, workload: w.Workload,
		eventType: corev1.EventTypeNormal, reason: reason, message: w.Message, id: "wake-" + w.SleepID,
	})
}

// Notice implements notice.Events.
func (c *Cluster) Notice(n notice.Notice) {
	eventType := corev1.EventTypeNormal
	if n.Warning {
		eventType = corev1.EventTypeWarning
	}
	c.events.add(story{
		namespace: n.Namespace, service: n.Service, serviceUID: n.ServiceUID, workload: n.Workload,
		eventType: eventType, reason: n.Reason, message: n.Message, id: n.ID,
	})
}

// Warn implements scaler.Events.
func (c *Cluster) Warn(w scaler.Warning) {
	c.events.add(story{
		namespace: w.Namespace, service: w.Service, serviceUID: w.ServiceUID, workload: w.Workload,
		eventType: corev1.EventTypeWarning, reason: w.Reason, message: w.Message, id: w.ID,
	})
}

func (r *recorder) add(s story) {
	select {
	case r.queue <- happened{s, time.Now()}:
	default:
		r.options.Log.V(1).Info("Dropping an event, since too many wait", "namespace", s.namespace, "service", s.service)
	}
}

// run writes queued events until ctx is done, and then the rest, for at most flushTimeout.
func (r *recorder) run(ctx context.Context) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(flushTimeout, cancel) })
	defer stop()
	for ctx.Err() == nil {
		select {
		case h := <-r.queue:
			select {
			case <-time.After(time.Until(h.at.Add(writeDelay))):
			case <-ctx.Done():
			}
			r.writeAll(out, h)
		case <-ctx.Done():
		}
	}
	for range len(r.queue) {
		if out.Err() != nil {
			r.options.Log.Info("Ending without having written all events about wakes", "left", len(r.queue))
			return
		}
		r.writeAll(out, <-r.queue)
	}
}

func (r *recorder) writeAll(ctx context.Context, h happened) {
	for _, event := range h.story.events(r.options.PodName, h.at) {
		r.write(ctx, event)
	}
}

// +kubebuilder:rbac:groups="",resources=events,verbs=create
func (r *recorder) write(ctx context.Context, event *corev1.Event) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	_, err := r.client.CoreV1().Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		r.options.Log.Error(err, "Writing an event failed", "namespace", event.Namespace, "name", event.Name)
	}
}

// events returns the events that pod writes.
func (s *story) events(pod string, now time.Time) []*corev1.Event {
	objects := []corev1.ObjectReference{
		{APIVersion: "v1", Kind: "Service", Name: s.service, UID: types.UID(s.serviceUID)},
		{APIVersion: s.workload.APIVersion, Kind: s.workload.Kind, Name: s.workload.Name, UID: types.UID(s.workload.UID)},
	}
	events := make([]*corev1.Event, 0, len(objects))
	for _, object := range objects {
		object.Namespace = s.namespace
		kind := map[bool]string{true: "service", false: "workload"}[object.Kind == "Service"]
		events = append(events, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: s.namespace, Name: object.Name + "." + kind + "-" + s.id},
			InvolvedObject: object,
			Type:           s.eventType,
			Reason:         s.reason,
			Message:        s.message,
			Source:         corev1.EventSource{Component: component, Host: pod},
			// Clients of both APIs find the time that they show: kubectl get events uses the last timestamp.
			FirstTimestamp: metav1.NewTime(now),
			LastTimestamp:  metav1.NewTime(now),
			Count:          1,
		})
	}
	return events
}
