// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func TestRemove(t *testing.T) {
	certificate := func(name string) client.Object {
		return &certmanagerv1.Certificate{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: name}}
	}
	secret := func(name string) client.Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: name}}
	}
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		objects []client.Object
		fail    error  // of deleting a Certificate
		want    string // in the order of deletion
		err     error
	}{
		"everything": {
			objects: []client.Object{certificate("tls"), certificate("ca"), secret("tls"), secret("ca"), secret("other")},
			want:    "Certificate/tls Certificate/ca Secret/tls Secret/ca",
		},
		"nothing there": {want: "Certificate/tls Certificate/ca Secret/tls Secret/ca"},
		"without cert-manager": {
			objects: []client.Object{secret("tls")}, fail: &meta.NoKindMatchError{},
			want: "Certificate/tls Certificate/ca Secret/tls Secret/ca",
		},
		"a failure": {objects: []client.Object{secret("tls")}, fail: broken, want: "Certificate/tls", err: broken},
	} {
		t.Run(name, func(t *testing.T) {
			var deleted []string
			c := fake.NewClientBuilder().WithScheme(newScheme(t)).WithObjects(tc.objects...).WithInterceptorFuncs(interceptor.Funcs{
				Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
					kind := "Secret"
					if _, ok := o.(*certmanagerv1.Certificate); ok {
						kind = "Certificate"
					}
					deleted = append(deleted, kind+"/"+o.GetName())
					if kind == "Certificate" && tc.fail != nil {
						return tc.fail
					}
					return c.Delete(ctx, o, opts...)
				},
			}).Build()
			if err := Remove(t.Context(), c, testNamespace, []string{"tls", "ca"}); !errors.Is(err, tc.err) {
				t.Errorf("got %v", err)
			}
			if got := strings.Join(deleted, " "); got != tc.want {
				t.Errorf("deleted %s, want %s", got, tc.want)
			}
			var left corev1.SecretList
			if err := c.List(t.Context(), &left); err != nil {
				t.Fatal(err)
			}
			left.Items = slices.DeleteFunc(left.Items, func(s corev1.Secret) bool { return s.Name == "other" || tc.err != nil })
			if len(left.Items) > 0 {
				t.Errorf("left: %v", left.Items)
			}
		})
	}
}
