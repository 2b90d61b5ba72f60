// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

const (
	// wakeRolePrefix and two digits are the name of a Role, and of its RoleBinding. The chart grants the controllers these names.
	wakeRolePrefix = "scale-to-zero-wakes-"
	// maxWakeRoles is how many of these Roles a namespace has at most. For each request of an interceptor, the API server goes through
	// the namespace's RoleBindings and the names in their Roles.
	maxWakeRoles = 64
	// maxWakeNames is how many workloads a Role names at most. Each write contains all of them, and the API server checks that the
	// controllers have each of the rights themselves.
	maxWakeNames = 200
)

// Wakeable is a workload that the interceptors may wake: the resource of its kind, and its name.
type Wakeable struct{ Group, Resource, Name string }

// WakeableOf returns the Wakeable that routes lead to.
func WakeableOf(w api.Workload) Wakeable {
	group, _, _ := strings.Cut(w.APIVersion, "/")
	return Wakeable{Group: group, Resource: cmp.Or(w.Resource, strings.ToLower(w.Kind)+"s"), Name: w.Name}
}

// String is for people.
func (w Wakeable) String() string { return w.Resource + "/" + w.Name }

// class returns which workloads may be in one Role with it: those of the built-in kinds, or those of its own kind. The API server refuses
// a Role with a single right that the controllers do not have. That is possible for a custom kind, and must not concern other apps.
func (w Wakeable) class() string { return classOf(w.Group, w.Resource) }

func classOf(group, resource string) string {
	if group == builtInGroup {
		return group
	}
	return resource + "." + group
}

// builtInGroup is the API group of Kubernetes' own kinds.
const builtInGroup = "apps"

// WakeRoles are the Roles by which the interceptors may wake workloads, and nothing else of that kind: each has some names.
type WakeRoles struct {
	// Account is the interceptors' ServiceAccount.
	Account types.NamespacedName
}

// IsWakeRole reports whether a Role or a RoleBinding is one of ours.
func IsWakeRole(o metav1.Object) bool {
	_, ok := wakeRoleNumber(o)
	return ok
}

func wakeRoleNumber(o metav1.Object) (int, bool) {
	digits, ok := strings.CutPrefix(o.GetName(), wakeRolePrefix)
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n >= 0 && n < maxWakeRoles && o.GetName() == wakeRoleName(n) && o.GetLabels()[ManagedByLabel] == ManagedBy
}

func wakeRoleName(n int) string { return fmt.Sprintf("%s%02d", wakeRolePrefix, n) }

// wakeRole is a Role that is being filled.
type wakeRole struct {
	n     int
	class string
	names map[Wakeable]bool
}

// Roles spreads workloads over the Roles of their namespace. A workload stays in the Role that has it, and a new one comes into the first
// one with room. So a new app costs one write, of at most maxWakeNames names. have are the present Roles. left are the workloads for which
// no Role has room.
func (r WakeRoles) Roles(namespace string, have []rbacv1.Role, workloads []Wakeable) (roles []rbacv1.Role, left []Wakeable) {
	missing := map[Wakeable]bool{}
	for _, w := range workloads {
		missing[w] = true
	}
	var all []*wakeRole
	used := map[int]bool{}
	for i := range have {
		n, ok := wakeRoleNumber(&have[i])
		if !ok || used[n] {
			continue
		}
		if kept := keptIn(&have[i], missing); len(kept.names) > 0 {
			kept.n, used[n] = n, true
			all = append(all, kept)
		}
	}
	slices.SortFunc(all, func(a, b *wakeRole) int { return a.n - b.n })
	room, next := map[string][]*wakeRole{}, 0
	for _, role := range all {
		if len(role.names) < maxWakeNames {
			room[role.class] = append(room[role.class], role)
		}
	}
	for _, w := range slices.SortedFunc(maps.Keys(missing), compareWakeables) {
		free := room[w.class()]
		if len(free) == 0 {
			for used[next] {
				next++
			}
			if next >= maxWakeRoles {
				left = append(left, w)
				continue
			}
			used[next] = true
			free = []*wakeRole{{n: next, class: w.class(), names: map[Wakeable]bool{}}}
			all = append(all, free[0])
		}
		free[0].names[w] = true
		if len(free[0].names) >= maxWakeNames {
			free = free[1:]
		}
		room[w.class()] = free
	}
	for _, role := range all {
		roles = append(roles, r.role(namespace, role))
	}
	return roles, left
}

// keptIn returns what stays in a Role: the workloads that it names and that are missing. They are no longer missing then.
func keptIn(role *rbacv1.Role, missing map[Wakeable]bool) *wakeRole {
	kept := &wakeRole{names: map[Wakeable]bool{}}
	for _, w := range wakeables(role) {
		if !missing[w] || kept.class != "" && kept.class != w.class() || len(kept.names) >= maxWakeNames {
			continue
		}
		kept.class, kept.names[w] = w.class(), true
		delete(missing, w)
	}
	return kept
}

// wakeables returns the workloads that a Role names, in its order, if it does so as ours do.
func wakeables(role *rbacv1.Role) []Wakeable {
	var out []Wakeable
	for _, rule := range role.Rules {
		if len(rule.APIGroups) != 1 || len(rule.Resources) != 1 {
			continue
		}
		resource, ok := strings.CutSuffix(rule.Resources[0], "/scale")
		for _, name := range rule.ResourceNames {
			if ok {
				out = append(out, Wakeable{rule.APIGroups[0], resource, name})
			}
		}
	}
	return out
}

func compareWakeables(a, b Wakeable) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Name, b.Name))
}

func (r WakeRoles) role(namespace string, from *wakeRole) rbacv1.Role {
	out := rbacv1.Role{ObjectMeta: wakeRoleMeta(namespace, wakeRoleName(from.n))}
	for _, w := range slices.SortedFunc(maps.Keys(from.names), compareWakeables) {
		scale := w.Resource + "/scale"
		if last := len(out.Rules) - 1; last >= 0 && out.Rules[last].APIGroups[0] == w.Group && out.Rules[last].Resources[0] == scale {
			out.Rules[last].ResourceNames = append(out.Rules[last].ResourceNames, w.Name)
			continue
		}
		out.Rules = append(out.Rules, rbacv1.PolicyRule{
			APIGroups: []string{w.Group}, Resources: []string{scale}, ResourceNames: []string{w.Name}, Verbs: []string{"get", "patch"},
		})
	}
	return out
}

func wakeRoleMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{ManagedByLabel: ManagedBy}}
}

// binding gives a Role to the interceptors.
func (r WakeRoles) binding(role *rbacv1.Role) rbacv1.RoleBinding {
	return rbacv1.RoleBinding{
		ObjectMeta: wakeRoleMeta(role.Namespace, role.Name),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: r.Account.Namespace, Name: r.Account.Name}},
	}
}

// WakeablesOf returns the workloads that the Role of that name has.
func WakeablesOf(roles []rbacv1.Role, name string) []Wakeable {
	for i := range roles {
		if roles[i].Name == name {
			return wakeables(&roles[i])
		}
	}
	return nil
}

// NotGranted says that a write for a workload is refused.
func NotGranted(w Wakeable, what string, r Refusal) Skip {
	return Skip(fmt.Sprintf("the interceptors cannot be given the right to wake %s: %s is refused: %s. %s", w, what,
		strings.TrimSuffix(r.Why, "."), r.Advice))
}

// NoRoleLeft says that there is no room for a workload.
func NoRoleLeft(w Wakeable) Skip {
	return Skip(fmt.Sprintf("the interceptors cannot be given the right to wake %s: the %d Roles that a namespace may have for that are "+
		"full. Move some apps to another namespace", w, maxWakeRoles))
}

// WakeRoleStep is one write: it creates or, if the object has a resource version, updates or deletes it.
type WakeRoleStep struct {
	Object Object // a Role or its RoleBinding
	Delete bool
}

// Steps returns the writes that lead from the present Roles and RoleBindings of a namespace to the wanted Roles. Steps for the same name
// build on each other; those for different names do not.
func (r WakeRoles) Steps(have []rbacv1.Role, bindings []rbacv1.RoleBinding, want []rbacv1.Role) []WakeRoleStep {
	roles, bound := map[string]*rbacv1.Role{}, map[string]*rbacv1.RoleBinding{}
	for i := range have {
		if IsWakeRole(&have[i]) {
			roles[have[i].Name] = &have[i]
		}
	}
	for i := range bindings {
		if IsWakeRole(&bindings[i]) {
			bound[bindings[i].Name] = &bindings[i]
		}
	}
	var steps []WakeRoleStep
	write := func(o Object) { steps = append(steps, WakeRoleStep{Object: o}) }
	remove := func(o Object) { steps = append(steps, WakeRoleStep{Object: o, Delete: true}) }
	for i := range want {
		role, binding := want[i].DeepCopy(), r.binding(&want[i])
		if has := roles[role.Name]; has == nil {
			write(role)
		} else if !equality.Semantic.DeepEqual(has.Rules, role.Rules) {
			role.ResourceVersion = has.ResourceVersion
			write(role)
		}
		switch has := bound[role.Name]; {
		case has == nil:
			write(&binding)
		case has.RoleRef != binding.RoleRef: // it cannot be changed
			remove(has)
			write(&binding)
		case !equality.Semantic.DeepEqual(has.Subjects, binding.Subjects):
			binding.ResourceVersion = has.ResourceVersion
			write(&binding)
		}
		delete(roles, role.Name)
		delete(bound, role.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(bound)) {
		remove(bound[name])
	}
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		remove(roles[name])
	}
	return steps
}

// Granted returns the workloads that these Roles let the interceptors wake. Names for which failed is true were not written: what they
// had before, according to have and bindings, still holds.
func (r WakeRoles) Granted(
	have []rbacv1.Role, bindings []rbacv1.RoleBinding, want []rbacv1.Role, failed map[string]bool,
) map[Wakeable]bool {
	granted := map[Wakeable]bool{}
	for i := range want {
		names := wakeables(&want[i])
		if failed[want[i].Name] {
			names = r.grantedBy(want[i].Name, have, bindings)
		}
		for _, w := range names {
			granted[w] = true
		}
	}
	return granted
}

func (r WakeRoles) grantedBy(name string, have []rbacv1.Role, bindings []rbacv1.RoleBinding) []Wakeable {
	at := slices.IndexFunc(have, func(role rbacv1.Role) bool { return role.Name == name })
	if at < 0 {
		return nil
	}
	want := r.binding(&have[at])
	if !slices.ContainsFunc(bindings, func(b rbacv1.RoleBinding) bool {
		return b.Name == name && b.RoleRef == want.RoleRef && equality.Semantic.DeepEqual(b.Subjects, want.Subjects)
	}) {
		return nil
	}
	return wakeables(&have[at])
}
