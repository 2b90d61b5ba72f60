// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/scale-to-zero/scale-to-zero/interceptor/metrics"
)

// Scrapers asks the API server who may read metrics. It implements metrics.Reviewer.
//
// k8s.io/apiserver, and controller-runtime's filter that builds on it, do the same. They ask about every token that anybody sends, keep
// each answer, and add 138 packages to the binary.
type Scrapers struct{ client kubernetes.Interface }

// NewScrapers returns Scrapers that ask the API server of config.
func NewScrapers(config *rest.Config) (*Scrapers, error) {
	// What these calls wait for, no wake waits for: the client has its own share.
	config = rest.CopyConfig(config)
	config.QPS, config.Burst, config.RateLimiter = 50, 100, nil
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return &Scrapers{client: client}, nil
}

// Review implements metrics.Reviewer.
func (s *Scrapers) Review(ctx context.Context, token string) (metrics.Verdict, error) {
	// Without an audience, the token has to be for the API server.
	review, err := s.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	if err != nil {
		return metrics.Unknown, fmt.Errorf("asking whose a token is: %w", err)
	}
	if !review.Status.Authenticated {
		return metrics.Unknown, nil
	}
	user := review.Status.User
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for key, values := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	access, err := s.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, Groups: user.Groups, UID: user.UID, Extra: extra,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/metrics", Verb: "get"},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return metrics.Unknown, fmt.Errorf("asking whether %s may get /metrics: %w", user.Username, err)
	}
	if !access.Status.Allowed || access.Status.Denied {
		return metrics.Forbidden, nil
	}
	return metrics.Allowed, nil
}
