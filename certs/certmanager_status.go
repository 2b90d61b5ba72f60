// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/cert-manager/cert-manager/pkg/apis/certmanager"
	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// status describes cert-manager's progress with the certificate, from the conditions of the Certificate and its issuer. In the chart,
// the Certificate has the name of its Secret.
func (c *certManager) status(ctx context.Context) string {
	var certificate certmanagerv1.Certificate
	if err := c.Reader.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: c.SecretName}, &certificate); err != nil {
		return unread("Certificate", c.Namespace+"/"+c.SecretName, err)
	}
	return certificateStatus(&certificate) + ". " + c.issuerStatus(ctx, &certificate)
}

// issuerStatus returns the part of status that is about the certificate's issuer.
func (c *certManager) issuerStatus(ctx context.Context, certificate *certmanagerv1.Certificate) string {
	ref := certificate.Spec.IssuerRef
	kind := cmp.Or(ref.Kind, certmanagerv1.IssuerKind)
	var issuer certmanagerv1.GenericIssuer
	key := client.ObjectKey{Name: ref.Name}
	switch {
	case cmp.Or(ref.Group, certmanager.GroupName) != certmanager.GroupName:
		return fmt.Sprintf("Its issuer is %s.%s/%s", kind, ref.Group, ref.Name)
	case kind == certmanagerv1.ClusterIssuerKind:
		issuer = &certmanagerv1.ClusterIssuer{}
	default:
		issuer, key.Namespace = &certmanagerv1.Issuer{}, c.Namespace
	}
	name := strings.TrimPrefix(key.String(), "/")
	if err := c.Reader.Get(ctx, key, issuer); err != nil {
		return unread(kind, name, err)
	}
	return issuerStatus(kind+" "+name, issuer)
}

// unread says why the status of an object is unknown.
func unread(kind, name string, err error) string {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("%s %s does not exist", kind, name)
	case meta.IsNoMatchError(err):
		return fmt.Sprintf("There is no %s %s: cert-manager is not installed", kind, name)
	default:
		return fmt.Sprintf("%s %s cannot be read: %v", kind, name, err)
	}
}

// certificateStatus describes the conditions of certificate.
func certificateStatus(certificate *certmanagerv1.Certificate) string {
	var said []string
	for _, c := range certificate.Status.Conditions {
		said = append(said, condition(string(c.Type), c.Status, c.Reason, c.Message))
	}
	return conditions(fmt.Sprintf("Certificate %s/%s", certificate.Namespace, certificate.Name), said)
}

// issuerStatus describes the conditions of issuer.
func issuerStatus(name string, issuer certmanagerv1.GenericIssuer) string {
	var said []string
	for _, c := range issuer.GetStatus().Conditions {
		said = append(said, condition(string(c.Type), c.Status, c.Reason, c.Message))
	}
	return conditions(name, said)
}

func condition(kind string, status cmmeta.ConditionStatus, reason, message string) string {
	return fmt.Sprintf("%s is %s (%s): %s", kind, status, reason, message)
}

func conditions(name string, said []string) string {
	if len(said) == 0 {
		return name + " has no conditions yet: cert-manager has not looked at it"
	}
	return name + ": " + strings.Join(said, "; ")
}

// eventReason is the reason of the event about a missing certificate.
const eventReason = "CertificateNotIssued"

// emit writes an event on the controllers' Deployment. All replicas give the event the same name, so that there is only one. If the
// event cannot be written, that is only logged.
func (c *certManager) emit(ctx context.Context, why string) {
	if c.Deployment == "" {
		return
	}
	deployment, err := c.Client.AppsV1().Deployments(c.Namespace).Get(ctx, c.Deployment, metav1.GetOptions{})
	if err != nil {
		c.Log.Error(err, "Finding the Deployment for an event failed", "deployment", c.Namespace+"/"+c.Deployment)
		return
	}
	const maxMessage = 1024 // the API server's limit
	message := cmp.Or(c.problem, "The webhook's certificate in Secret "+c.SecretName+" cannot be served: ") + why
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage-len("...")], "") + "..."
	}
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(message)) // never fails
	now := metav1.NewTime(time.Now())
	_, err = c.Client.CoreV1().Events(c.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: fmt.Sprintf("%s.%x", deployment.Name, sum.Sum64())},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "apps/v1", Kind: "Deployment", Namespace: c.Namespace, Name: deployment.Name, UID: deployment.UID,
		},
		Type: corev1.EventTypeWarning, Reason: eventReason, Message: message,
		Source:         corev1.EventSource{Component: "scale-to-zero"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		c.Log.Error(err, "Writing an event failed", "message", message)
	}
}
