// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"strings"
	"testing"
)

const chart = `
kind: ClusterRole
metadata: {name: all}
rules:
  - {apiGroups: [""], resources: [services], verbs: [list, patch]}
  - {apiGroups: [apps], resources: [deployments/scale], verbs: [patch]}
---
kind: ClusterRoleBinding
metadata: {name: all}
roleRef: {kind: ClusterRole, name: all}
subjects: [{kind: ServiceAccount, name: controller, namespace: ours}]
---
kind: Role
metadata: {name: own, namespace: ours}
rules:
  - {apiGroups: [""], resources: [secrets], resourceNames: [a, b], verbs: [list, get]}
---
kind: RoleBinding
metadata: {name: own, namespace: ours}
roleRef: {kind: Role, name: own}
subjects: [{kind: ServiceAccount, name: controller, namespace: ours}]
`

// line is an entry of an audit log.
func line(user, verb, uri, ref, code, decision string) string {
	return `{"kind":"Event","verb":"` + verb + `","requestURI":"` + uri + `","user":{"username":"` + user +
		`","extra":{"authentication.kubernetes.io/pod-name":["controller-1"]}},"objectRef":` + ref +
		`,"responseStatus":{"code":` + code + `,"message":"because of X"},"annotations":{"authorization.k8s.io/decision":"` + decision + `"}}`
}

const (
	account  = "system:serviceaccount:ours:controller"
	service  = `{"resource":"services","namespace":"a","name":"web"}`
	services = `{"resource":"services"}`
	scale    = `{"resource":"deployments","subresource":"scale","apiGroup":"apps","namespace":"a","name":"web"}`
	secret   = `{"resource":"secrets","namespace":"ours","name":"b"}`
	secrets  = `{"resource":"secrets","namespace":"ours"}`

	plain   = `{"resource":"deployments","apiGroup":"apps","namespace":"a","name":"web"}`
	another = `{"resource":"secrets","namespace":"ours","name":"c"}`
	theirs  = `{"resource":"secrets","namespace":"a","name":"b"}`
)

// all are requests that use every right.
func all() []string {
	return []string{
		line(account, "list", "/api/v1/services?limit=500", services, "200", "allow"),
		line(account, "patch", "/api/v1/namespaces/a/services/web", service, "404", "allow"),
		line(account, "patch", "/apis/apps/v1/namespaces/a/deployments/web/scale", scale, "200", "allow"),
		line(account, "get", "/api/v1/namespaces/ours/secrets/b", secret, "200", "allow"),
		line(account, "list", "/api/v1/namespaces/ours/secrets?fieldSelector=metadata.name%3Da", secrets, "200", "allow"),
		line(account, "get", "/api", "null", "200", "allow"),
	}
}

func TestComparison(t *testing.T) {
	rights, err := granted(chart)
	if err != nil || len(rights) != 5 {
		t.Fatalf("rights %v: %v", rights, err)
	}
	replaced := func(n int, entry string) []string {
		lines := all()
		lines[n] = entry
		return lines
	}
	for name, tc := range map[string]struct {
		log      []string
		excuses  []excuse
		expected []expectation
		want     string // part of the only problem; empty if there is none
	}{
		"everything is used": {log: all()},
		"used by a watch": {
			log: replaced(0, line(account, "watch", "/api/v1/services?sendInitialEvents=true&watch=true", services, "200", "allow")),
		},
		"a watch of what comes": {
			log: replaced(0, line(account, "watch", "/api/v1/services?watch=true", services, "200", "allow")), want: "list services",
		},
		"not used": {log: all()[1:], want: "controller: list services: granted, but not used"},
		"by another account": {
			log:  replaced(0, line("system:serviceaccount:ours:other", "list", "/api/v1/services", services, "200", "allow")),
			want: "list services",
		},
		"by the same name elsewhere": {
			log:  replaced(0, line("system:serviceaccount:theirs:controller", "list", "/api/v1/services", services, "200", "allow")),
			want: "list services",
		},
		"the resource, not its scale": {
			log:  replaced(2, line(account, "patch", "/x", plain, "200", "allow")),
			want: "patch deployments.apps/scale",
		},
		"another group": {
			log:  replaced(1, line(account, "patch", "/x", `{"resource":"services","apiGroup":"x.y","namespace":"a"}`, "200", "allow")),
			want: "patch services",
		},
		"another name":      {log: replaced(3, line(account, "get", "/x", another, "200", "allow")), want: "get secrets"},
		"another namespace": {log: replaced(3, line(account, "get", "/x", theirs, "200", "allow")), want: "get secrets"},
		"no name":           {log: replaced(4, line(account, "list", "/x", secrets, "200", "allow")), want: "list secrets"},
		"excused":           {log: all()[1:], excuses: []excuse{{"controller", "", "services", "list watch", "why"}}},
		"another excuse": {
			log: all()[1:], excuses: []excuse{{"controller", "", "services", "patch", "why"}}, want: "list services",
		},
		"excused, not granted": {log: all(), excuses: []excuse{{"controller", "", "services", "delete", "why"}}, want: "not granted"},
		"refused by roles": {
			log:  append(all(), line(account, "delete", "/x", service, "403", "forbid")),
			want: "controller: delete services a/web: refused 1 times: because of X",
		},
		"refused while the roles were away": {log: append(all(), line(account, "patch", "/x", service, "403", "forbid"))},
		"refused by a policy": {
			log: append(all(), line(account, "patch", "/x", service, "403", "allow")), want: "patch services a/web: refused",
		},
		"expected": {
			log: append(all(), line(account, "patch", "/x", service, "403", "allow")), expected: []expectation{{"services", "of X", "why"}},
		},
		"another is expected": {
			log: append(all(), line(account, "patch", "/x", service, "403", "allow")), expected: []expectation{{"services", "of Y", "why"}},
			want: "patch services",
		},
		"by a token of a test": {
			log:  replaced(0, strings.Replace(line(account, "list", "/api/v1/services", services, "200", "allow"), "pod-name", "x", 1)),
			want: "list services",
		},
		"refused to a token of a test": {
			log: append(all(), strings.Replace(line(account, "delete", "/x", service, "403", "forbid"), "pod-name", "x", 1)),
		},
		"a path": {log: append(all(), line(account, "get", "/logs?x", "null", "403", "forbid")), want: "get /logs"},
		"only refused": {
			log:  replaced(0, line(account, "list", "/api/v1/services", services, "403", "forbid")),
			want: "list services: granted, but not used",
		},
	} {
		t.Run(name, func(t *testing.T) {
			made, refused, err := read(strings.NewReader(strings.Join(tc.log, "\n")), "ours")
			if err != nil {
				t.Fatal(err)
			}
			got := append(compare(rights, made, tc.excuses), explain(rights, refused, tc.expected)...)
			if tc.want == "" && len(got) > 0 || tc.want != "" && (len(got) != 1 || !strings.Contains(got[0], tc.want)) {
				t.Errorf("got %q, want one of %q", got, tc.want)
			}
		})
	}
}

func TestDanglingBinding(t *testing.T) {
	const binding = "\n---\nkind: RoleBinding\nmetadata: {name: x, namespace: ours}\nroleRef: {kind: Role, name: x}\n"
	if _, err := granted(chart + binding); err == nil {
		t.Error("a binding of no role is not noticed")
	}
}
