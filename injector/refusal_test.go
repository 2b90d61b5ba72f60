// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestRefusalOf(t *testing.T) {
	services, slices := corev1.Resource("services"), discoveryv1.Resource("endpointslices")
	forbidden := func(r schema.GroupResource, why string) error { return apierrors.NewForbidden(r, "x", errors.New(why)) }
	answered := func(code int32, message string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Message: message}}
	}
	terminating := apierrors.NewForbidden(services, "x", errors.New("unable to create new content in namespace shop because it is "+
		"being terminated"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for name, tc := range map[string]struct {
		err    error
		advice string // part of the advice; empty means that it is no refusal
	}{
		"quota": {
			forbidden(services, "exceeded quota: few, requested: services=1, used: services=1, limited: services=1"),
			"ResourceQuota",
		},
		"quota that wants limits": {forbidden(services, "failed quota: few: must specify limits.cpu"), "ResourceQuota"},
		"rights": {
			forbidden(services, `User "system:serviceaccount:a:b" cannot create resource "services" in API group ""`), "ClusterRole",
		},
		"openshift":          {forbidden(slices, "endpoint address 10.131.6.166 is not allowed"), "endpointslices/restricted"},
		"webhook":            {answered(http.StatusForbidden, `admission webhook "vscaledobject.kb.io" denied the request: no`), "Exempt"},
		"webhook's own code": {answered(http.StatusBadRequest, `admission webhook "a" denied the request: no`), "Exempt"},
		"policy": {
			answered(http.StatusUnprocessableEntity, `ValidatingAdmissionPolicy 'a' with binding 'b' denied request: no`), "Exempt",
		},
		"webhook that is away": {apierrors.NewInternalError(errors.New(`failed calling webhook "a": connection refused`)), "Repair"},
		"invalid":              {apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "x", nil), "Change"},
		"wrapped":              {fmt.Errorf("creating: %w", forbidden(services, "no")), "Change"},

		"conflict":        {apierrors.NewConflict(services, "x", errors.New("it changed")), ""},
		"exists":          {apierrors.NewAlreadyExists(services, "x"), ""},
		"not found":       {apierrors.NewNotFound(services, "x"), ""},
		"too many":        {apierrors.NewTooManyRequestsError("later"), ""},
		"time-out":        {apierrors.NewTimeoutError("slow", 1), ""},
		"internal":        {apierrors.NewInternalError(errors.New("etcd")), ""},
		"token too old":   {apierrors.NewUnauthorized("Unauthorized"), ""},
		"namespace going": {terminating, ""},
		"no answer":       {context.DeadlineExceeded, ""},
		"nothing":         {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, refused := RefusalOf(tc.err)
			if refused != (tc.advice != "") || !strings.Contains(got.Advice, tc.advice) {
				t.Errorf("got %+v, %t", got, refused)
			}
			if refused && !strings.Contains(tc.err.Error(), got.Why) {
				t.Errorf("says %q of %q", got.Why, tc.err)
			}
		})
	}
	long, _ := RefusalOf(forbidden(services, strings.Repeat("ü", 1000)))
	if len(long.Why) > maxWhy+len("…") || !strings.HasSuffix(long.Why, "ü…") {
		t.Errorf("a long message becomes %q", long.Why)
	}
}
