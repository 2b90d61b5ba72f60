// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Refusal is why the API server refuses one of our writes, in its own words, and what the reader can do about it.
type Refusal struct {
	Why, Advice string
}

// maxWhy bounds how much of the API server's message an event contains.
const maxWhy = 400

// RefusalOf reads an error of the API server. It returns false for errors that say nothing about the write itself, such as a
// conflict, a timeout, or a namespace that is being deleted.
func RefusalOf(err error) (Refusal, bool) {
	var api apierrors.APIStatus
	if !errors.As(err, &api) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return Refusal{}, false
	}
	status := api.Status()
	why := status.Message
	if len(why) > maxWhy {
		why = strings.ToValidUTF8(why[:maxWhy], "") + "…"
	}
	switch {
	case strings.Contains(status.Message, "failed calling webhook"): // this comes as an internal error
		return Refusal{why, "Repair that webhook, or exempt " + ManagedByLabel + "=" + ManagedBy + " from it"}, true
	case status.Code == http.StatusBadRequest, status.Code == http.StatusForbidden, status.Code == http.StatusUnprocessableEntity:
		return Refusal{why, advice(status.Message)}, true
	default:
		return Refusal{}, false
	}
}

// ForeignSlice is the refusal of a route slice whose name another EndpointSlice has.
func ForeignSlice(s *discoveryv1.EndpointSlice) Refusal {
	return Refusal{
		Why: "there is one of that name that scale-to-zero has not made",
		Advice: fmt.Sprintf("If nobody needs it, delete it: kubectl delete endpointslice -n %s %s. Otherwise label a Service of another name",
			s.Namespace, s.Name),
	}
}

// ForeignRole is the refusal of a Role or a RoleBinding whose name another one has.
func ForeignRole(o Object) Refusal {
	kind := "role"
	if _, binding := o.(*rbacv1.RoleBinding); binding {
		kind = "rolebinding"
	}
	return Refusal{
		Why:    "there is one of that name that scale-to-zero has not made, or whose label " + ManagedByLabel + "=" + ManagedBy + " is gone",
		Advice: fmt.Sprintf("If nobody needs it, delete it: kubectl delete %s -n %s %s. It is made anew", kind, o.GetNamespace(), o.GetName()),
	}
}

// advice goes by the words of the API server's own plugins: nothing else distinguishes their errors.
func advice(message string) string {
	says := func(words string) bool { return strings.Contains(message, words) }
	switch {
	case says("exceeded quota"), says("failed quota"):
		return "Raise that ResourceQuota, or free some of it"
	case says("endpoint address") && says("is not allowed"): // OpenShift's RestrictedEndpointsAdmission
		return "Allow scale-to-zero's controller to create endpointslices/restricted (discovery.k8s.io), as its chart does"
	case says("attempting to grant RBAC permissions not currently held"):
		return "List the kind in the chart's value customWorkloads: the controllers can grant only rights that they have themselves"
	case says("is forbidden: User "): // RBAC
		return "Grant that right, as scale-to-zero's chart does: its ClusterRole was changed, or is of another version"
	case says("denied"):
		return "Exempt objects with the label " + ManagedByLabel + "=" + ManagedBy + " from that policy, or change it"
	default:
		return "Change what refuses it"
	}
}
