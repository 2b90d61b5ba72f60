// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/scale-to-zero/scale-to-zero/interceptor/metrics"
)

// TestScrapers: the API server is asked about the whole user of the token, and what it does not allow is not allowed.
func TestScrapers(t *testing.T) {
	user := authenticationv1.UserInfo{
		Username: "system:serviceaccount:monitoring:prometheus", UID: "u", Groups: []string{"system:authenticated"},
		Extra: map[string]authenticationv1.ExtraValue{"pod": {"prometheus-0"}},
	}
	down := errors.New("connection refused")
	for name, tc := range map[string]struct {
		token     authenticationv1.TokenReviewStatus
		access    authorizationv1.SubjectAccessReviewStatus
		down      string // the resource that cannot be created
		want      metrics.Verdict
		questions int
	}{
		"nobody's": {want: metrics.Unknown, questions: 1},
		"an error in the review": {
			token: authenticationv1.TokenReviewStatus{Error: "token has expired", User: user}, want: metrics.Unknown, questions: 1,
		},
		"without a right": {
			token: authenticationv1.TokenReviewStatus{Authenticated: true, User: user}, want: metrics.Forbidden, questions: 2,
		},
		"allowed": {
			token:  authenticationv1.TokenReviewStatus{Authenticated: true, User: user},
			access: authorizationv1.SubjectAccessReviewStatus{Allowed: true}, want: metrics.Allowed, questions: 2,
		},
		"denied all the same": {
			token:  authenticationv1.TokenReviewStatus{Authenticated: true, User: user},
			access: authorizationv1.SubjectAccessReviewStatus{Allowed: true, Denied: true}, want: metrics.Forbidden, questions: 2,
		},
		"no answer": {down: "tokenreviews", questions: 1},
		"no second answer": {
			token: authenticationv1.TokenReviewStatus{Authenticated: true, User: user}, down: "subjectaccessreviews", questions: 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			clientset := fake.NewClientset()
			clientset.PrependReactor("create", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
				if a.GetResource().Resource == tc.down {
					return true, nil, down
				}
				switch o := a.(clienttesting.CreateAction).GetObject().(type) {
				case *authenticationv1.TokenReview:
					if o.Spec.Token != "secret" || len(o.Spec.Audiences) > 0 {
						t.Errorf("asked about %v", o.Spec)
					}
					o.Status = tc.token
					return true, o, nil
				case *authorizationv1.SubjectAccessReview:
					want := authorizationv1.SubjectAccessReviewSpec{
						User: user.Username, UID: "u", Groups: user.Groups, Extra: map[string]authorizationv1.ExtraValue{"pod": {"prometheus-0"}},
						NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/metrics", Verb: "get"},
					}
					if d := cmp.Diff(want, o.Spec); d != "" {
						t.Errorf("asked about (-want +got):\n%s", d)
					}
					o.Status = tc.access
					return true, o, nil
				}
				return false, nil, nil
			})
			got, err := (&Scrapers{client: clientset}).Review(t.Context(), "secret")
			if got != tc.want || (err != nil) != (tc.down != "") || len(clientset.Actions()) != tc.questions {
				t.Errorf("got %v, %v after %d questions", got, err, len(clientset.Actions()))
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error gives the token away: %v", err)
			}
		})
	}
}
