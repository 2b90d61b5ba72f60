// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"slices"
	"strings"
)

// excuse is for rights that a run need not use. The verbs are separated by spaces.
type excuse struct {
	account, group, resource, verbs string
	why                             string
}

func (e excuse) covers(r right) bool {
	return e.account == r.account && e.group == r.group && e.resource == r.resource && slices.Contains(strings.Fields(e.verbs), r.verb)
}

// unused are the rights that no end-to-end test needs, with what does.
func unused() []excuse {
	const controller, restore = release + "-controller", release + "-restore"
	return []excuse{
		{
			controller, "discovery.k8s.io", "endpointslices/restricted", "create",
			"OpenShift's admission asks who has this right; no request uses it",
		},
		{
			controller, "keda.sh", "clustertriggerauthentications", "patch",
			"it is made once; it differs only after an upgrade to other keys, or when somebody has changed it",
		},
		{
			controller, "cert-manager.io", "certificates", "get", "asked only while a certificate is missing; cert-manager may be faster",
		},
		{
			controller, "cert-manager.io", "issuers", "get", "as for certificates",
		},
		{
			controller, "apps", "statefulsets", "get", "taking the ownership of replicas from KEDA, as for Deployments; test/api: TestStatefulSet",
		},
		{
			controller, "apps", "statefulsets/scale", "patch", "scaling without KEDA, as for Deployments; test/api: TestStatefulSet",
		},
		{
			controller, "apps", "deployments/scale", "get", "the controllers grant it to the interceptors, and may grant only what they have",
		},
		{
			controller, "apps", "statefulsets/scale", "get", "as for Deployments",
		},
		{
			controller, "rbac.authorization.k8s.io", "roles", "get", "only a Role of our name that is not ours is read; test/api has one",
		},
		{
			controller, "rbac.authorization.k8s.io", "rolebindings", "get update", "as for Roles; what somebody has changed is put back in test/api",
		},
		{
			restore, "rbac.authorization.k8s.io", "roles", "delete", "the controllers delete Roles with the routes, unless they are stopped before",
		},
		{
			restore, "rbac.authorization.k8s.io", "rolebindings", "delete", "as for Roles",
		},
		{
			restore, "", "pods", "patch", "the controllers lower CPU limits themselves, unless one is raised while they end",
		},
		{
			restore, "", "pods/resize", "patch", "as for pods",
		},
	}
}

// expectation is for refusals that tests provoke, and for those that cannot be avoided.
type expectation struct {
	resource, message string // part of the message
	why               string
}

func (e expectation) covers(f refusal) bool {
	return (e.resource == "" || e.resource == f.resource) && strings.Contains(f.message, e.message)
}

func expected() []expectation {
	return []expectation{
		{"", "because it is being terminated", "tests delete their namespaces with the apps in them"},
		{
			"", `controller" cannot get resource "mutatingwebhookconfigurations"`,
			"an upgrade to cert-manager's certificates takes this right from controllers that are about to end",
		},
		{
			"", `interceptor" cannot get resource "deployments/scale"`,
			"an app is asked about whose last route, and with it the Role, has just gone; the answer then comes from the counts",
		},
		{"", "interceptors may only scale from 0 replicas to more", "two interceptors wake an app at once, and the second finds it awake"},
	}
}
