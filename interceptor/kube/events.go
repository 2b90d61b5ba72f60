package kube

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

const (
	component = "scale-to-zero-interceptor"
	reason    = "WakeRequested"
	// maxQueued is how many events may wait to be written; more are dropped.
	maxQueued    = 1024
	writeTimeout = 10 * time.Second
	// writeDelay is how long an event waits to be written. What it tells of is a start, which needs the API server more.
	writeDelay = 500 * time.Millisecond
	// flushTimeout bounds the writing of those that still wait at the end.
	flushTimeout = 2 * time.Second
)

// recorder writes events, one after the other, in its own goroutine. client-go's recorders would count, rename and
// repeat them; these have names of their own so that all interceptors together make one.
type recorder struct {
	client  kubernetes.Interface
	options Options
	queue   chan happened
}

// happened is what there is to tell, and when that was.
type happened struct {
	events []*corev1.Event
	at     time.Time
}

func newRecorder(client kubernetes.Interface, o Options) *recorder {
	return &recorder{client: client, options: o, queue: make(chan happened, maxQueued)}
}

// WakeRequested implements scaler.Events.
func (c *Cluster) WakeRequested(w scaler.Wake) {
	c.events.add(wakeEvents(w, c.options.PodName, time.Now()))
}

// Warn implements scaler.Events.
func (c *Cluster) Warn(w scaler.Warning) { c.events.add(warnings(w, c.options.PodName, time.Now())) }

func (r *recorder) add(events []*corev1.Event) {
	select {
	case r.queue <- happened{events, events[0].LastTimestamp.Time}:
	default:
		r.options.Log.V(1).Info("dropping an event, since too many wait", "namespace", events[0].Namespace, "name", events[0].Name)
	}
}

// run writes what is queued until ctx is done, and then what is left, for no longer than flushTimeout.
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
			r.options.Log.Info("ending without having written all events about wakes", "left", len(r.queue))
			return
		}
		r.writeAll(out, <-r.queue)
	}
}

func (r *recorder) writeAll(ctx context.Context, h happened) {
	for _, event := range h.events {
		r.write(ctx, event)
	}
}

func (r *recorder) write(ctx context.Context, event *corev1.Event) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	_, err := r.client.CoreV1().Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		r.options.Log.Error(err, "writing event", "namespace", event.Namespace, "name", event.Name)
	}
}

// wakeEvents returns the events about w: one on the Service, where its users look, and one on the workload. Their names
// follow from the sleep that ends, so that of several interceptors that see the same wake all but the first find theirs
// written already.
func wakeEvents(w scaler.Wake, pod string, now time.Time) []*corev1.Event {
	return eventsOf(scaler.Warning{
		Namespace: w.Namespace, Service: w.Service, ServiceUID: w.ServiceUID, Workload: w.Workload,
		Reason: reason, ID: "wake-" + w.SleepID, Message: w.Message,
	}, corev1.EventTypeNormal, pod, now)
}

// warnings returns the same about w.
func warnings(w scaler.Warning, pod string, now time.Time) []*corev1.Event {
	return eventsOf(w, corev1.EventTypeWarning, pod, now)
}

func eventsOf(w scaler.Warning, eventType, pod string, now time.Time) []*corev1.Event {
	objects := []corev1.ObjectReference{
		{APIVersion: "v1", Kind: "Service", Name: w.Service, UID: types.UID(w.ServiceUID)},
		{APIVersion: w.Workload.APIVersion, Kind: w.Workload.Kind, Name: w.Workload.Name, UID: types.UID(w.Workload.UID)},
	}
	events := make([]*corev1.Event, 0, len(objects))
	for _, object := range objects {
		object.Namespace = w.Namespace
		kind := map[bool]string{true: "service", false: "workload"}[object.Kind == "Service"]
		events = append(events, &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: w.Namespace, Name: object.Name + "." + kind + "-" + w.ID,
			},
			InvolvedObject: object,
			Type:           eventType,
			Reason:         w.Reason,
			Message:        w.Message,
			Source:         corev1.EventSource{Component: component, Host: pod},
			// Clients of either API find what they show: kubectl get events goes by the last timestamp.
			FirstTimestamp: metav1.NewTime(now),
			LastTimestamp:  metav1.NewTime(now),
			Count:          1,
		})
	}
	return events
}
