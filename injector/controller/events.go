package controller

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Reasons of the events that tell an app's story. WakeRequested comes from the interceptors.
const (
	reasonInjected  = "Injected"
	reasonSkipped   = "InjectionSkipped"
	reasonWithdrawn = "Restoring"
	reasonRestored  = "Restored"
	reasonAwake     = "Awake"
	reasonAsleep    = "Asleep"
)

// storyteller records events, a lasting state of a Service only once.
type storyteller struct {
	recorder events.EventRecorder

	mu   sync.Mutex // protects last
	last map[types.NamespacedName]string
}

func newStoryteller(recorder events.EventRecorder) *storyteller {
	return &storyteller{recorder: recorder, last: map[types.NamespacedName]string{}}
}

// tell records an event on each of the objects that is not nil.
func (s *storyteller) tell(eventType, reason, note string, objects ...client.Object) {
	for _, o := range objects {
		if o != nil {
			s.recorder.Eventf(o, nil, eventType, reason, reason, "%s", note)
		}
	}
}

// tellOnce is tell, unless the same was the last thing told of the Service by tellOnce.
func (s *storyteller) tellOnce(eventType, reason, note string, service *corev1.Service) {
	key := client.ObjectKeyFromObject(service)
	s.mu.Lock()
	told := s.last[key] == reason+note
	s.last[key] = reason + note
	s.mu.Unlock()
	if !told {
		s.tell(eventType, reason, note, service)
	}
}

// forget makes the next tellOnce of the Service tell.
func (s *storyteller) forget(key types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, key)
}
