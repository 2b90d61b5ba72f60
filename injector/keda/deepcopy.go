// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package keda

import (
	"maps"

	"k8s.io/apimachinery/pkg/runtime"
)

// DeepCopyInto copies o into out, sharing nothing.
func (o *ScaledObject) DeepCopyInto(out *ScaledObject) {
	*out = *o
	o.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	s := &out.Spec
	for _, p := range []**int32{
		&s.PollingInterval, &s.CooldownPeriod, &s.InitialCooldownPeriod, &s.IdleReplicaCount, &s.MinReplicaCount, &s.MaxReplicaCount,
	} {
		if *p != nil {
			*p = new(**p)
		}
	}
	if s.Advanced != nil {
		s.Advanced = new(*s.Advanced)
		if m := s.Advanced.ScalingModifiers; m != nil {
			s.Advanced.ScalingModifiers = new(*m)
		}
	}
	s.Triggers = make([]Trigger, len(o.Spec.Triggers))
	for i, t := range o.Spec.Triggers {
		t.Metadata = maps.Clone(t.Metadata)
		if t.AuthenticationRef != nil {
			t.AuthenticationRef = new(*t.AuthenticationRef)
		}
		s.Triggers[i] = t
	}
}

// DeepCopy returns a copy that shares nothing with o.
func (o *ScaledObject) DeepCopy() *ScaledObject {
	out := new(ScaledObject)
	o.DeepCopyInto(out)
	return out
}

// DeepCopyObject implements runtime.Object.
func (o *ScaledObject) DeepCopyObject() runtime.Object { return o.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (l *ScaledObjectList) DeepCopyObject() runtime.Object {
	out := &ScaledObjectList{TypeMeta: l.TypeMeta}
	l.DeepCopyInto(&out.ListMeta)
	out.Items = make([]ScaledObject, len(l.Items))
	for i := range l.Items {
		l.Items[i].DeepCopyInto(&out.Items[i])
	}
	return out
}
