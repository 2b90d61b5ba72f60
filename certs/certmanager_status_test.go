// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), certmanagerv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return scheme
}

func certManagerWith(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	return fake.NewClientBuilder().WithScheme(newScheme(t)).WithObjects(objects...).Build()
}

// certificate returns the webhook's Certificate with this issuer and these conditions.
func certificate(ref cmmeta.IssuerReference, conditions ...certmanagerv1.CertificateCondition) *certmanagerv1.Certificate {
	return &certmanagerv1.Certificate{
		ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: testSecret},
		Spec:       certmanagerv1.CertificateSpec{IssuerRef: ref},
		Status:     certmanagerv1.CertificateStatus{Conditions: conditions},
	}
}

func notReady(message string) certmanagerv1.IssuerStatus {
	return certmanagerv1.IssuerStatus{Conditions: []certmanagerv1.IssuerCondition{{
		Type: certmanagerv1.IssuerConditionReady, Status: cmmeta.ConditionFalse, Reason: "ErrGetKeyPair", Message: message,
	}}}
}

func TestStatusOfCertManager(t *testing.T) {
	issuing := certmanagerv1.CertificateCondition{
		Type: certmanagerv1.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, Reason: "DoesNotExist",
		Message: "Issuing certificate as Secret does not exist",
	}
	unready := certmanagerv1.CertificateCondition{
		Type: certmanagerv1.CertificateConditionReady, Status: cmmeta.ConditionFalse, Reason: "DoesNotExist",
		Message: "Issuing certificate as Secret does not exist",
	}
	const name = testNamespace + "/" + testSecret
	said := "Certificate " + name + ": Issuing is True (DoesNotExist): Issuing certificate as Secret does not exist; " +
		"Ready is False (DoesNotExist): Issuing certificate as Secret does not exist. "
	for title, tc := range map[string]struct {
		objects []client.Object
		fail    error
		want    string
	}{
		"no cert-manager": {fail: &meta.NoKindMatchError{}, want: "There is no Certificate " + name + ": cert-manager is not installed"},
		"no right":        {fail: errors.New("forbidden"), want: "Certificate " + name + " cannot be read: forbidden"},
		"no Certificate":  {want: "Certificate " + name + " does not exist"},
		"nothing done yet": {
			objects: []client.Object{certificate(cmmeta.IssuerReference{Name: "ca"})},
			want: "Certificate " + name + " has no conditions yet: cert-manager has not looked at it. " +
				"Issuer " + testNamespace + "/ca does not exist",
		},
		"an Issuer that is not ready": {
			objects: []client.Object{
				certificate(cmmeta.IssuerReference{Name: "ca"}, issuing, unready),
				&certmanagerv1.Issuer{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "ca"}, Status: notReady("no key pair")},
			},
			want: said + "Issuer " + testNamespace + "/ca: Ready is False (ErrGetKeyPair): no key pair",
		},
		"a ClusterIssuer that is not ready": {
			objects: []client.Object{
				certificate(cmmeta.IssuerReference{Name: "ca", Kind: "ClusterIssuer", Group: "cert-manager.io"}, issuing, unready),
				&certmanagerv1.ClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "ca"}, Status: notReady("no account")},
			},
			want: said + "ClusterIssuer ca: Ready is False (ErrGetKeyPair): no account",
		},
		"an issuer of somebody else's": {
			objects: []client.Object{certificate(cmmeta.IssuerReference{Name: "ca", Kind: "Vault", Group: "example.com"}, issuing, unready)},
			want:    said + "Its issuer is Vault.example.com/ca",
		},
	} {
		t.Run(title, func(t *testing.T) {
			c := fake.NewClientBuilder().WithScheme(newScheme(t)).WithObjects(tc.objects...).WithInterceptorFuncs(interceptor.Funcs{
				Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
					if tc.fail != nil {
						return tc.fail
					}
					return c.Get(ctx, key, o, opts...)
				},
			}).Build()
			m := &certManager{Options: &Options{Namespace: testNamespace, SecretName: testSecret, Reader: c}}
			if got := m.status(t.Context()); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// A missing certificate is logged at once, becomes one event for all replicas after a while, and is reported again when cert-manager
// says something new.
func TestReportsWhatCertManagerWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "controller", UID: "u"}}
		c := newCluster(t, deployment)
		events := func() []corev1.Event {
			list, err := c.CoreV1().Events(testNamespace).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return list.Items
		}
		m, log := c.reader(certificate(cmmeta.IssuerReference{Name: "ca"}))
		other, _ := c.reader(certificate(cmmeta.IssuerReference{Name: "ca"}))
		m.Deployment, other.Deployment = deployment.Name, deployment.Name
		ensure(t, m, other)
		start(t, m)
		start(t, other)
		assertLine(t, log.take(), "Waiting for cert-manager", "Issuer "+testNamespace+"/ca does not exist")
		advance(eventAfter - time.Second)
		if got := events(); len(got) > 0 {
			t.Errorf("events at once: %v", got)
		}
		advance(time.Hour)
		got := events()
		if len(got) != 1 {
			t.Fatalf("%d events, want one: %v", len(got), got)
		}
		if e := got[0]; e.Reason != eventReason || e.Type != corev1.EventTypeWarning || e.InvolvedObject.Name != deployment.Name ||
			e.InvolvedObject.UID != deployment.UID || !strings.Contains(e.Message, "it does not exist. Certificate") ||
			!strings.Contains(e.Message, "Issuer "+testNamespace+"/ca does not exist") {
			t.Errorf("got %+v", e)
		}
		if lines := log.take(); len(lines) > 0 {
			t.Errorf("logged again: %q", lines)
		}

		issuer := &certmanagerv1.Issuer{
			ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "ca"}, Status: notReady(strings.Repeat("é", 1024)),
		}
		if err := m.Reader.(client.Client).Create(t.Context(), issuer); err != nil {
			t.Fatal(err)
		}
		advance(statusInterval)
		assertLine(t, log.take(), "ErrGetKeyPair")
		if got := events(); len(got) != 2 || len(got[1].Message) > 1024 || !strings.HasSuffix(got[1].Message, "é...") {
			t.Errorf("got %v", got)
		}
	})
}

// The certificate is served even if an event cannot be written.
func TestEventThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		m, log := c.reader()
		m.Deployment = "gone"
		ensure(t, m)
		start(t, m)
		log.take()
		advance(time.Hour)
		assertLine(t, log.take(), "Finding the Deployment for an event failed", testNamespace+"/gone")
		c.issued(newIssuer(nil).issue(testHost, leafLife))
		synctest.Wait()
		assertLine(t, log.take(), "Serving the webhook's certificate from cert-manager")
	})
}
