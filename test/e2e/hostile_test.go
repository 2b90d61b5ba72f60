// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

// The tests of the files hostile_*_test.go attack a real cluster with real accounts and real traffic. Each attack that docs/security.md
// knows is held somewhere:
//
//	attack                                        held by
//	------------------------------------------    ---------------------------------------------------------------------------
//	forged route slices, mirrored Endpoints       here: TestHostileSlices, with and without the policy
//	                                              test/chart: policies_slices; interceptor/kube: TestForgedRouteSlices
//	a path as the name of a resource              here: TestHostileSlices; interceptor/api: TestHostileRoutesDoNotDecode, FuzzDecodeRoutes
//	direct slices with addresses of one's own     here: TestHostileSlices; interceptor/kube: TestForgedDirectSlices
//	ports of another's Service                    here: TestHostileSlices; test/api: TestPortsOfAnotherService
//	memory of an interceptor                      test/memory: TestAttacks; of the webhook: webhook: TestManyLargeReviews
//	a Service with 3,000 ports                    here: TestHostilePorts; test/api: TestPortsAndAffinity, with the race detector
//	the gRPC port, other ports of interceptors    here: TestHostileScan; interceptor/conformance: TestMutualTLS
//	apps that a NetworkPolicy closes              here: TestNetworkPolicies; test/api: TestPodsOutOfReach
//	leading CRLF, silence, CONNECT                interceptor/conformance: TestHTTPIsNeverBytes, TestSmuggling and others
//	an unrelated workload, rights on Services     here: TestHostileOptIn; test/api: TestServiceEditorPutsNothingToSleep
//	what a stolen account of ours may do          here: TestStolenAccounts; test/chart: policies_accounts
//	rights that nobody needs                      test/rights
//	a port scan, silence                          here: TestHostileScan; interceptor/conformance: TestSilenceWakesNobody
//	visitors of an app that cannot start          here: TestHostileReader, TestStartFails
//	an app that the API server calls              here: TestHostileWebhook; test/api: TestFrontIsWarned and injector: TestSkipsOfServices
//	labels and names of ours                      here: TestHostileNames; injector: TestSkipsOfServices, TestRouteSlicesAreOurs
//	Accept-Language, themes                       interceptor/page: TestHostileAcceptLanguage, TestHostileThemes
//	secrets in a path                             here: TestHostilePath; interceptor/scaler: publicpath
//
// Policies and roles are tried by the tokens of service accounts, never by an administrator.

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// rule is a right to do everything with a resource.
func rule(group, resource string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{"*"}}
}

// editor returns the client of an account that has the role edit in the stack's namespace, and these rights more.
func (s *stack) editor(more ...rbacv1.PolicyRule) client.Client {
	s.t.Helper()
	return s.account("editor", rbacv1.RoleRef{Kind: "ClusterRole", Name: "edit"}, more...)
}

// account makes an account with these rights in the stack's namespace, and returns its client.
func (s *stack) account(name string, role rbacv1.RoleRef, more ...rbacv1.PolicyRule) client.Client {
	s.t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: name}}
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: s.ns, Name: name}}
	role.APIGroup = rbacv1.GroupName
	objects := []client.Object{account}
	if role.Name != "" {
		meta := metav1.ObjectMeta{Namespace: s.ns, Name: name}
		objects = append(objects, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: role, Subjects: subjects})
	}
	if len(more) > 0 {
		role := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}
		objects = append(objects,
			&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: name}, Rules: more},
			&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: name + "-more"}, RoleRef: role, Subjects: subjects})
	}
	for _, o := range objects {
		if err := kube.Create(s.t.Context(), o); err != nil {
			s.t.Fatal(err)
		}
	}
	c := clientOf(s.t, account)
	if role.Name != "" || len(more) > 0 {
		eventually(s.t, name+" has its rights", func() error {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: s.ns, Verb: "create", Resource: "services"},
			}}
			if err := c.Create(s.t.Context(), review); err != nil || review.Status.Allowed {
				return err
			}
			return fmt.Errorf("it may not create Services: %s", review.Status.Reason)
		})
	}
	return c
}

// clientOf returns the client of an account, by a token of its own.
func clientOf(t *testing.T, account *corev1.ServiceAccount) client.Client {
	t.Helper()
	token := &authenticationv1.TokenRequest{}
	if err := kube.SubResource("token").Create(t.Context(), account, token); err != nil {
		t.Fatal(err)
	}
	own := rest.AnonymousClientConfig(config)
	own.BearerToken = token.Status.Token
	own.QPS, own.Burst = config.QPS, config.Burst
	c, err := client.New(own, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// denied fails the test unless the error is a refusal that says why.
func denied(t *testing.T, what string, err error, why string) {
	t.Helper()
	if !refused(err) || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: want a refusal with %q, got %v", what, why, err)
	}
}

// refused reports whether an error is a refusal by roles or by a policy.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy")
}

// told waits for an event whose reason and message contain the text.
func (s *stack) told(text string) {
	s.t.Helper()
	eventually(s.t, "an event says "+text, func() error {
		events := s.events()
		if !strings.Contains(events, text) {
			return fmt.Errorf("events: %s", events)
		}
		return nil
	})
}

// events returns the reasons and messages of all events of the stack's namespace.
func (s *stack) events() string {
	s.t.Helper()
	return kubectl(s.t, "get", "events", "-n", s.ns, "-o", `jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}`)
}

// cooldown makes an app stay awake, or sleep soon.
func (s *stack) cooldown(app, d string) {
	s.t.Helper()
	kubectl(s.t, "annotate", "service", "-n", s.ns, app, "--overwrite", "scale-to-zero/cooldown="+d)
}

// answers checks that it is this app of this stack that answers.
func (s *stack) answers(app, when string) {
	s.t.Helper()
	for _, got := range get(s.t, "-n", "20", "-c", "4", "http://"+app+"."+s.ns+"/echo") {
		if got.Status != 200 || !strings.Contains(got.Body, `"app":"`+app+`"`) {
			s.t.Errorf("%s: got %+v", when, got)
		}
	}
}

// logs returns what our pods of this component have logged, as far as they still run.
func logs(ctx context.Context, component string) (string, error) {
	return command(ctx, os.Getenv("KUBECTL"), "logs", "-n", release, "-l", "app.kubernetes.io/component="+component, "--tail=-1")
}

// interceptors returns the addresses of their pods.
func interceptors(t *testing.T) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "get", "pods", "-n", release, "-l", "app.kubernetes.io/component=interceptor",
		"--field-selector", "status.phase=Running", "-o", "jsonpath={.items[*].status.podIP}"))
}
