// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// right is one verb that an account may use on one resource.
type right struct {
	account, namespace    string // the namespace is empty if it is for all
	group, resource, verb string // the resource has its subresource: deployments/scale
	names                 string // of the objects, separated by commas; empty for all
}

func (r right) String() string {
	text := fmt.Sprintf("%s: %s %s", r.account, r.verb, join(r.group, r.resource))
	if r.names != "" {
		text += " " + r.names
	}
	if r.namespace != "" {
		text += " in " + r.namespace
	}
	return text
}

func join(group, resource string) string {
	if group == "" {
		return resource
	}
	before, after, sub := strings.Cut(resource, "/")
	if !sub {
		return before + "." + group
	}
	return before + "." + group + "/" + after
}

// allows reports whether the right is one to make the request.
func (r right) allows(q request) bool {
	return r.account == q.account && r.group == q.group && r.resource == q.resource && r.verb == q.verb &&
		(r.namespace == "" || r.namespace == q.namespace) &&
		(r.names == "" || slices.Contains(strings.Split(r.names, ","), q.name))
}

// object is what a manifest has of roles and of bindings.
type object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Rules    []rbacv1.PolicyRule `json:"rules"`
	RoleRef  rbacv1.RoleRef      `json:"roleRef"`
	Subjects []rbacv1.Subject    `json:"subjects"`
}

// granted returns the rights in a manifest, each once.
func granted(manifest string) ([]right, error) {
	roles := map[string][]rbacv1.PolicyRule{}
	var bindings []object
	d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifest), 4096)
	for {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		switch o.Kind {
		case "ClusterRole", "Role":
			roles[o.Kind+o.Namespace+"/"+o.Name] = o.Rules
		case "ClusterRoleBinding", "RoleBinding":
			bindings = append(bindings, o)
		}
	}
	var all []right
	for _, b := range bindings {
		namespace := ""
		if b.RoleRef.Kind == "Role" {
			namespace = b.Namespace
		}
		rules, found := roles[b.RoleRef.Kind+namespace+"/"+b.RoleRef.Name]
		if !found {
			return nil, fmt.Errorf("%s %s binds %s %s, which the manifest lacks", b.Kind, b.Name, b.RoleRef.Kind, b.RoleRef.Name)
		}
		for _, s := range b.Subjects {
			for _, rule := range rules {
				all = append(all, rights(s.Name, b.Namespace, rule)...)
			}
		}
	}
	return distinct(all), nil
}

// rights returns each right of a rule.
func rights(account, namespace string, rule rbacv1.PolicyRule) []right {
	var all []right
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				all = append(all, right{account, namespace, group, resource, verb, strings.Join(rule.ResourceNames, ",")})
			}
		}
	}
	return all
}

func distinct(all []right) []right {
	slices.SortFunc(all, func(a, b right) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(all)
}
