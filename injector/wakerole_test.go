// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

func wakeRolesOf(account string) WakeRoles {
	return WakeRoles{Account: types.NamespacedName{Namespace: "scale-to-zero", Name: account}}
}

// wakeWorld is a namespace with the Roles of ours.
type wakeWorld struct {
	rules    WakeRoles
	roles    []rbacv1.Role
	bindings []rbacv1.RoleBinding
	left     []Wakeable
	written  int // names in the Roles of the last round's writes
}

// round brings the Roles to what these workloads need, and returns its writes.
func (w *wakeWorld) round(workloads ...Wakeable) (steps []string) {
	var want []rbacv1.Role
	want, w.left = w.rules.Roles("apps", w.roles, workloads)
	roles, bindings := slices.Clone(w.roles), slices.Clone(w.bindings)
	w.written = 0
	for _, s := range w.rules.Steps(roles, bindings, want) {
		kind, verb := "Role", "create"
		switch o := s.Object.DeepCopyObject().(type) {
		case *rbacv1.Role:
			w.roles = slices.DeleteFunc(w.roles, func(r rbacv1.Role) bool { return r.Name == o.Name })
			if !s.Delete {
				w.written += len(wakeables(o))
			}
			if o.ResourceVersion != "" {
				verb = "update"
			}
			if o.ResourceVersion = "1"; !s.Delete {
				w.roles = append(w.roles, *o)
			}
		case *rbacv1.RoleBinding:
			kind = "RoleBinding"
			w.bindings = slices.DeleteFunc(w.bindings, func(b rbacv1.RoleBinding) bool { return b.Name == o.Name })
			if o.ResourceVersion != "" {
				verb = "update"
			}
			if o.ResourceVersion = "1"; !s.Delete {
				w.bindings = append(w.bindings, *o)
			}
		}
		if s.Delete {
			verb = "delete"
		}
		steps = append(steps, fmt.Sprintf("%s %s %s", verb, kind, strings.TrimPrefix(s.Object.GetName(), "scale-to-zero-wakes-")))
	}
	return steps
}

// named returns, by Role, what the interceptors may wake.
func (w *wakeWorld) named() map[string][]Wakeable {
	out := map[string][]Wakeable{}
	for i := range w.roles {
		out[strings.TrimPrefix(w.roles[i].Name, "scale-to-zero-wakes-")] = wakeables(&w.roles[i])
	}
	return out
}

func deployments(from, to int) (out []Wakeable) {
	for n := from; n < to; n++ {
		out = append(out, Wakeable{"apps", "deployments", fmt.Sprintf("app-%05d", n)})
	}
	return out
}

func TestWakeableOf(t *testing.T) {
	t.Parallel()
	for want, w := range map[Wakeable]api.Workload{
		{"apps", "deployments", "web"}:         {APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "1"},
		{"apps", "statefulsets", "db"}:         {APIVersion: "apps/v1", Kind: "StatefulSet", Name: "db"},
		{"argoproj.io", "rollouts", "web"}:     {APIVersion: "argoproj.io/v1alpha1", Kind: "Rollout", Name: "web", Resource: "rollouts"},
		{"example.com", "galleries", "mona.l"}: {APIVersion: "example.com/v1", Kind: "Gallery", Name: "mona.l", Resource: "galleries"},
	} {
		if got := WakeableOf(w); got != want {
			t.Errorf("%v: got %v", w, got)
		}
	}
}

// TestWakeRolesName: each workload that is to be woken is named by one Role, with the verbs of a wake, and nothing else is.
func TestWakeRolesName(t *testing.T) {
	t.Parallel()
	w := &wakeWorld{rules: wakeRolesOf("interceptor")}
	web, db := Wakeable{"apps", "deployments", "web"}, Wakeable{"apps", "statefulsets", "db"}
	rollout, gallery := Wakeable{"argoproj.io", "rollouts", "web"}, Wakeable{"example.com", "galleries", "web"}
	for _, tc := range []struct {
		what      string
		workloads []Wakeable
		steps     string
		names     map[string][]Wakeable
	}{
		{"none", nil, "", map[string][]Wakeable{}},
		{"one", []Wakeable{web}, "create Role 00, create RoleBinding 00", map[string][]Wakeable{"00": {web}}},
		{"the same, twice", []Wakeable{web, web}, "", map[string][]Wakeable{"00": {web}}},
		{"another kind", []Wakeable{db, web}, "update Role 00", map[string][]Wakeable{"00": {web, db}}},
		{
			"custom ones",
			[]Wakeable{db, gallery, rollout, web},
			"create Role 01, create RoleBinding 01, create Role 02, create RoleBinding 02",
			map[string][]Wakeable{"00": {web, db}, "01": {rollout}, "02": {gallery}},
		},
		{
			"one kind less",
			[]Wakeable{db, gallery, web},
			"delete RoleBinding 01, delete Role 01",
			map[string][]Wakeable{"00": {web, db}, "02": {gallery}},
		},
		{"one less", []Wakeable{db, gallery}, "update Role 00", map[string][]Wakeable{"00": {db}, "02": {gallery}}},
		{
			"a kind anew",
			[]Wakeable{db, gallery, rollout},
			"create Role 01, create RoleBinding 01",
			map[string][]Wakeable{"00": {db}, "01": {rollout}, "02": {gallery}},
		},
		{
			"none again", nil, "delete RoleBinding 00, delete RoleBinding 01, delete RoleBinding 02, delete Role 00, delete Role 01, delete Role 02",
			map[string][]Wakeable{},
		},
	} {
		if got := strings.Join(w.round(tc.workloads...), ", "); got != tc.steps {
			t.Errorf("%s: %s", tc.what, got)
		}
		if diff := cmp.Diff(tc.names, w.named()); diff != "" {
			t.Errorf("%s: %s", tc.what, diff)
		}
		for _, r := range w.roles {
			for _, rule := range r.Rules {
				if !slices.Equal(rule.Verbs, []string{"get", "patch"}) || len(rule.ResourceNames) == 0 || len(rule.Resources) != 1 ||
					!strings.HasSuffix(rule.Resources[0], "/scale") || len(rule.NonResourceURLs) > 0 {
					t.Errorf("%s: it grants %v", tc.what, rule)
				}
			}
		}
	}
}

// TestWakeRolesOfOthers: what somebody does to our Roles is undone, and Roles of others are left alone.
func TestWakeRolesOfOthers(t *testing.T) {
	t.Parallel()
	web := Wakeable{"apps", "deployments", "web"}
	for name, tc := range map[string]struct {
		change func(*wakeWorld)
		steps  string
	}{
		"nothing": {func(*wakeWorld) {}, ""},
		"a name more": {func(w *wakeWorld) {
			w.roles[0].Rules[0].ResourceNames = append(w.roles[0].Rules[0].ResourceNames, "other")
		}, "update Role 00"},
		"all names":       {func(w *wakeWorld) { w.roles[0].Rules[0].ResourceNames = nil }, "update Role 00"},
		"a verb":          {func(w *wakeWorld) { w.roles[0].Rules[0].Verbs = []string{"*"} }, "update Role 00"},
		"a rule":          {func(w *wakeWorld) { w.roles[0].Rules = append(w.roles[0].Rules, rbacv1.PolicyRule{}) }, "update Role 00"},
		"no rule":         {func(w *wakeWorld) { w.roles[0].Rules = nil }, "update Role 00"},
		"the Role":        {func(w *wakeWorld) { w.roles = nil }, "create Role 00"},
		"the RoleBinding": {func(w *wakeWorld) { w.bindings = nil }, "create RoleBinding 00"},
		"a subject more": {func(w *wakeWorld) {
			w.bindings[0].Subjects = append(w.bindings[0].Subjects, rbacv1.Subject{Kind: "User", Name: "eve"})
		}, "update RoleBinding 00"},
		"another account": {func(w *wakeWorld) { w.rules = wakeRolesOf("proxy") }, "update RoleBinding 00"},
		"another Role":    {func(w *wakeWorld) { w.bindings[0].RoleRef.Name = "admin" }, "delete RoleBinding 00, create RoleBinding 00"},
		"a binding without a Role": {func(w *wakeWorld) {
			other := *w.bindings[0].DeepCopy()
			other.Name = "scale-to-zero-wakes-05"
			w.bindings = append(w.bindings, other)
		}, "delete RoleBinding 05"},
		"a Role with the same names": {func(w *wakeWorld) {
			other := *w.roles[0].DeepCopy()
			other.Name = "scale-to-zero-wakes-05"
			w.roles = append(w.roles, other)
		}, "delete Role 05"},
		"somebody else's Roles": {func(w *wakeWorld) {
			for _, name := range []string{
				"scale-to-zero-wakes-64", "scale-to-zero-wakes-1", "scale-to-zero-wakes-001", "scale-to-zero-wakes--1",
				"scale-to-zero-wakes-xx", "wakes-01",
			} {
				other := *w.roles[0].DeepCopy()
				other.Name = name
				w.roles = append(w.roles, other)
			}
			other := *w.roles[0].DeepCopy()
			other.Name, other.Labels = "scale-to-zero-wakes-01", nil
			w.roles = append(w.roles, other)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &wakeWorld{rules: wakeRolesOf("interceptor")}
			w.round(web)
			tc.change(w)
			if got := strings.Join(w.round(web), ", "); got != tc.steps {
				t.Errorf("steps: %q, want %q", got, tc.steps)
			}
			if steps := w.round(web); len(steps) > 0 {
				t.Errorf("afterwards: %v", steps)
			}
			if diff := cmp.Diff([]Wakeable{web}, w.named()["00"]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWakeRolesOfMany: a namespace of 10,000 apps has Roles of a bounded size, a new app costs one write of one of them, and nothing moves.
func TestWakeRolesOfMany(t *testing.T) {
	t.Parallel()
	w := &wakeWorld{rules: wakeRolesOf("interceptor")}
	all := deployments(0, 10_000)
	w.round(all...)
	if len(w.roles) != 10_000/maxWakeNames || len(w.left) > 0 {
		t.Fatalf("%d Roles, %d left", len(w.roles), len(w.left))
	}
	before := w.named()
	gone := slices.Concat(all[:50], all[5000:5001])
	kept := slices.Concat(all[50:5000], all[5001:])
	if steps := w.round(kept...); len(steps) != 2 || w.written > 2*maxWakeNames {
		t.Errorf("%d apps go: %d writes of %d names", len(gone), len(steps), w.written)
	}
	for name, names := range w.named() {
		if lost := slices.DeleteFunc(slices.Clone(names), func(n Wakeable) bool { return slices.Contains(before[name], n) }); len(lost) > 0 {
			t.Errorf("%v came to %s", lost, name)
		}
	}
	for n := range 51 {
		kept = append(kept, Wakeable{"apps", "deployments", fmt.Sprintf("new-%02d", n)})
		if steps := w.round(kept...); len(steps) != 1 || w.written > maxWakeNames {
			t.Fatalf("an app comes: %v, %d names", steps, w.written)
		}
	}
	if len(w.roles) != 10_000/maxWakeNames {
		t.Errorf("the gaps are not filled: %d Roles", len(w.roles))
	}
	w.round(deployments(0, maxWakeRoles*maxWakeNames+7)...)
	if len(w.roles) != maxWakeRoles || len(w.left) != 7 {
		t.Errorf("%d Roles, %d left", len(w.roles), len(w.left))
	}
}

// TestWakeRoleSize: a Role fits into etcd whatever the names.
func TestWakeRoleSize(t *testing.T) {
	t.Parallel()
	w := &wakeWorld{rules: wakeRolesOf("interceptor")}
	var long []Wakeable
	for n := range maxWakeNames {
		long = append(long, Wakeable{"apps", "deployments", fmt.Sprintf("%0253d", n)})
	}
	w.round(long...)
	if text, err := json.Marshal(w.roles[0]); err != nil || len(text) > 200_000 || len(w.roles) != 1 {
		t.Errorf("%d bytes, %v, %d Roles", len(text), err, len(w.roles))
	}
}

// TestWakeRolesAtRandom: whatever comes and goes, and whatever somebody does to the Roles, in the end they name what they should.
func TestWakeRolesAtRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w, want := &wakeWorld{rules: wakeRolesOf("interceptor")}, map[Wakeable]bool{}
		kinds := []Wakeable{{"apps", "deployments", ""}, {"apps", "statefulsets", ""}, {"argoproj.io", "rollouts", ""}}
		for range 10 {
			for range rng.IntN(3 * maxWakeNames) {
				one := kinds[rng.IntN(len(kinds))]
				one.Name = fmt.Sprint("app-", rng.IntN(4*maxWakeNames))
				if want[one] = rng.IntN(2) == 0; !want[one] {
					delete(want, one)
				}
			}
			if len(w.roles) > 0 && rng.IntN(3) == 0 {
				at := rng.IntN(len(w.roles))
				other := *w.roles[at].DeepCopy()
				other.Name = wakeRoleName(rng.IntN(maxWakeRoles))
				w.roles = append(slices.Delete(w.roles, at, at+1), other)
			}
			w.round(slices.Collect(maps.Keys(want))...)
			got := map[Wakeable]bool{}
			for _, names := range w.named() {
				if len(names) > maxWakeNames {
					t.Fatalf("seed %d: %d names", seed, len(names))
				}
				for _, n := range names {
					if got[n] || n.class() != names[0].class() {
						t.Fatalf("seed %d: %v is named twice, or beside another kind", seed, n)
					}
					got[n] = true
				}
			}
			if !maps.Equal(got, want) || len(w.bindings) != len(w.roles) {
				t.Fatalf("seed %d: %d of %d workloads are named, %d bindings of %d Roles", seed, len(got), len(want), len(w.bindings), len(w.roles))
			}
		}
	}
}

// TestGranted: what could not be written is not granted, and what was there before still is.
func TestGranted(t *testing.T) {
	t.Parallel()
	rules, all := wakeRolesOf("interceptor"), deployments(0, 3)
	w := &wakeWorld{rules: rules}
	w.round(all[:2]...)
	want, _ := rules.Roles("apps", w.roles, all)
	name := wakeRoleName(0)
	other := w.bindings[0].DeepCopy()
	other.Subjects[0].Name = "old"
	for what, tc := range map[string]struct {
		roles    []rbacv1.Role
		bindings []rbacv1.RoleBinding
		failed   bool
		granted  int
	}{
		"written":                        {w.roles, w.bindings, false, 3},
		"an update that failed":          {w.roles, w.bindings, true, 2},
		"a first Role that failed":       {nil, nil, true, 0},
		"a binding that failed":          {w.roles, nil, true, 0},
		"a binding of another account":   {w.roles, []rbacv1.RoleBinding{*other}, true, 0},
		"a Role that failed, and stayed": {nil, w.bindings, true, 0},
	} {
		if got := rules.Granted(tc.roles, tc.bindings, want, map[string]bool{name: tc.failed}); len(got) != tc.granted {
			t.Errorf("%s: %v", what, got)
		}
	}
}
