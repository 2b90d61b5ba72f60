// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// MirrorStep is one write on the way from the present policies to the wanted ones.
type MirrorStep struct {
	Policy networkingv1.NetworkPolicy
	Delete bool
}

// Steps returns the writes that lead from the policies have to the policies want, in their order. After each of them, everybody may
// still connect who may connect both before and after all of them, and nobody else than those who may connect before or after.
//
// A port can move between the base policy, which opens it, and a shard, which binds it: it has to be in both before it leaves one of
// them. The base policy is the first to come and the last to go, since without it a shard alone would close all other ports.
func (m Mirror) Steps(have, want []networkingv1.NetworkPolicy) []MirrorStep {
	if len(have) == 0 && len(want) == 0 {
		return nil
	}
	s := mirrorSteps{now: map[string]networkingv1.NetworkPolicy{}}
	for _, p := range have {
		s.now[p.Name] = p
	}
	wanted := map[string]networkingv1.NetworkPolicy{}
	for _, p := range want {
		wanted[p.Name] = p
	}
	base, kept := wanted[m.Name]
	if !kept {
		base = m.everything()
	}
	before, isolated := s.now[m.Name]
	if !isolated {
		before = m.everything()
		if len(have) > 0 { // somebody has deleted the base policy alone
			before = base
		}
		if len(want) > 1 || len(have) > 0 {
			s.write(before)
		}
	}
	moves := !sameRules(before, base)
	names := namesOf(have, want, m.Name)
	for _, name := range names {
		from, to := s.now[name], wanted[name]
		if to.Name == "" || !moves {
			continue
		}
		to.Spec.Ingress = slices.Concat(to.Spec.Ingress, missingRules(from.Spec.Ingress, to.Spec.Ingress))
		s.write(to)
	}
	s.write(base)
	for _, name := range names {
		if to, ok := wanted[name]; ok {
			s.write(to)
		} else {
			s.delete(name)
		}
	}
	if !kept {
		s.delete(m.Name)
	}
	return s.steps
}

// everything is a base policy that closes no port.
func (m Mirror) everything() networkingv1.NetworkPolicy {
	p := m.policy(m.Name)
	p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{portRange(1, maxPort)}}}
	return p
}

// mirrorSteps collects writes.
type mirrorSteps struct {
	now   map[string]networkingv1.NetworkPolicy // after the steps
	steps []MirrorStep
}

func (s *mirrorSteps) write(p networkingv1.NetworkPolicy) {
	if now, ok := s.now[p.Name]; ok && samePolicy(now, p) {
		return
	}
	s.now[p.Name] = p
	s.steps = append(s.steps, MirrorStep{Policy: p})
}

func (s *mirrorSteps) delete(name string) {
	if now, ok := s.now[name]; ok {
		delete(s.now, name)
		s.steps = append(s.steps, MirrorStep{Policy: now, Delete: true})
	}
}

func samePolicy(a, b networkingv1.NetworkPolicy) bool {
	return equality.Semantic.DeepEqual(a.Spec, b.Spec) && equality.Semantic.DeepEqual(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}

func sameRules(a, b networkingv1.NetworkPolicy) bool {
	return equality.Semantic.DeepEqual(a.Spec.Ingress, b.Spec.Ingress)
}

// missingRules returns the rules that are not among those of other.
func missingRules(rules, other []networkingv1.NetworkPolicyIngressRule) []networkingv1.NetworkPolicyIngressRule {
	return slices.DeleteFunc(slices.Clone(rules), func(r networkingv1.NetworkPolicyIngressRule) bool {
		return slices.ContainsFunc(other, func(o networkingv1.NetworkPolicyIngressRule) bool { return equality.Semantic.DeepEqual(r, o) })
	})
}

// namesOf returns the names of all policies but the base policy, sorted.
func namesOf(have, want []networkingv1.NetworkPolicy, base string) []string {
	var names []string
	for _, p := range slices.Concat(have, want) {
		if p.Name != base {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
