// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
)

// airflow is a release of the Airflow-like chart in a namespace of its own.
type airflow struct {
	t    *testing.T
	helm string
	ns   string
}

const webserver = "airflow-webserver" // its Service and its Deployment

// newAirflow installs the chart, without the label. Its Service has a cool-down of 3 s.
func newAirflow(t *testing.T, helm string, values ...string) *airflow {
	t.Helper()
	a := &airflow{t: t, helm: os.Getenv(helm), ns: newNamespace(t)}
	repository, tag, _ := strings.Cut(os.Getenv("E2E_APP_IMAGE"), ":")
	a.upgrade(append([]string{
		"--install", "--wait", "--timeout", "2m", "--set", "image.repository=" + repository, "--set-string", "image.tag=" + tag,
		"--set-string", `webserver.service.annotations.scale-to-zero/cooldown=3s`, "--set", "webserver.startDelay=500ms",
		"--set", "ingress.web.enabled=true",
	}, values...)...)
	return a
}

// newNamespace makes a namespace for a test. If the test fails, it prints what is in it.
func newNamespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}
	if err := kube.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background() // the test's own context has ended
		if t.Failed() {
			out, _ := command(ctx, os.Getenv("KUBECTL"), "events", "-n", ns.Name)
			t.Log(out)
			out, _ = command(ctx, os.Getenv("KUBECTL"), "get", "-n", ns.Name, "deployments,pods,services,endpointslices,scaledobjects", "-o", "wide")
			t.Log(out)
		}
		_, _ = command(ctx, os.Getenv("KUBECTL"), "delete", "namespace", ns.Name, "--wait=false")
	})
	return ns.Name
}

// upgrade is `helm upgrade`.
func (a *airflow) upgrade(args ...string) {
	a.t.Helper()
	must(a.t, a.helm, append([]string{"upgrade", "airflow", os.Getenv("E2E_APP_CHART"), "-n", a.ns}, args...)...)
}

// optIn sets the one Helm value, and waits until the Service is injected and KEDA has its ScaledObject.
func (a *airflow) optIn() {
	a.t.Helper()
	a.upgrade("--reuse-values", "--set-string", "webserver.labels.scale-to-zero=true")
	eventually(a.t, "the Service is intercepted", func() error {
		if s := a.service(); !injector.Intercepted(s) {
			return fmt.Errorf("selector %v", s.Spec.Selector)
		}
		return kube.Get(a.t.Context(), client.ObjectKey{Namespace: a.ns, Name: webserver + "-deployment"}, &keda.ScaledObject{})
	})
}

// asleep waits until the app is at zero replicas and its last pod is gone.
func (a *airflow) asleep() {
	a.t.Helper()
	eventually(a.t, "the app sleeps", func() error {
		if n := *a.deployment().Spec.Replicas; n != 0 {
			return fmt.Errorf("it has %d replicas", n)
		}
		if pods := a.endpoints(webserver + "-direct"); len(pods) > 0 {
			return fmt.Errorf("pods are listed: %v", pods)
		}
		return nil
	})
}

// label sets or removes the label on both objects on which the chart puts it.
func (a *airflow) label(label string) {
	a.t.Helper()
	kubectl(a.t, "label", "-n", a.ns, "--overwrite", "ingress/airflow-ingress", label)
	kubectl(a.t, "label", "-n", a.ns, "--overwrite", "service/"+webserver, label)
}

func (a *airflow) service() *corev1.Service {
	a.t.Helper()
	s := &corev1.Service{}
	a.get(webserver, s)
	return s
}

func (a *airflow) deployment() *appsv1.Deployment {
	a.t.Helper()
	d := &appsv1.Deployment{}
	a.get(webserver, d)
	return d
}

func (a *airflow) get(name string, o client.Object) {
	a.t.Helper()
	if err := kube.Get(a.t.Context(), client.ObjectKey{Namespace: a.ns, Name: name}, o); err != nil {
		a.t.Fatal(err)
	}
}

// endpoints returns the ready addresses behind a Service, as kube-proxy reads them.
func (a *airflow) endpoints(service string) []string {
	a.t.Helper()
	var list discoveryv1.EndpointSliceList
	if err := kube.List(a.t.Context(), &list, client.InNamespace(a.ns),
		client.MatchingLabels{discoveryv1.LabelServiceName: service}); err != nil {
		a.t.Fatal(err)
	}
	addresses := []string{}
	for _, s := range list.Items {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				addresses = append(addresses, e.Addresses...)
			}
		}
	}
	slices.Sort(addresses)
	return addresses
}

// podIPs returns the addresses of the webserver's ready pods.
func (a *airflow) podIPs() []string {
	a.t.Helper()
	var list corev1.PodList
	if err := kube.List(a.t.Context(), &list, client.InNamespace(a.ns), client.MatchingLabels{"component": "webserver"}); err != nil {
		a.t.Fatal(err)
	}
	addresses := []string{}
	for _, p := range list.Items {
		ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		if ready && p.DeletionTimestamp.IsZero() {
			addresses = append(addresses, p.Status.PodIP)
		}
	}
	slices.Sort(addresses)
	return addresses
}

// url is the Service's short name, as a pod of another namespace writes it.
func (a *airflow) url(path string) string { return "http://" + webserver + "." + a.ns + ":8080" + path }

// events returns the reasons and messages of the events on an object.
func (a *airflow) events(kind, name string) []string {
	a.t.Helper()
	var list corev1.EventList
	if err := kube.List(a.t.Context(), &list, client.InNamespace(a.ns)); err != nil {
		a.t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(x, y corev1.Event) int { return x.CreationTimestamp.Compare(y.CreationTimestamp.Time) })
	var out []string
	for _, e := range list.Items {
		if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name {
			out = append(out, e.Reason+": "+e.Message)
		}
	}
	return out
}

func count(events []string, reason string) int {
	n := 0
	for _, e := range events {
		if strings.HasPrefix(e, reason+": ") {
			n++
		}
	}
	return n
}

// remains lists our objects that are still in the namespace.
func (a *airflow) remains() error {
	a.t.Helper()
	var left []string
	for _, list := range []client.ObjectList{&corev1.ServiceList{}, &discoveryv1.EndpointSliceList{}, &keda.ScaledObjectList{}} {
		if err := kube.List(a.t.Context(), list, client.InNamespace(a.ns),
			client.MatchingLabels{injector.ManagedByLabel: injector.ManagedBy}); err != nil {
			a.t.Fatal(err)
		}
		switch l := list.(type) {
		case *corev1.ServiceList:
			for _, o := range l.Items {
				left = append(left, "service "+o.Name)
			}
		case *discoveryv1.EndpointSliceList:
			for _, o := range l.Items {
				left = append(left, "endpointslice "+o.Name)
			}
		case *keda.ScaledObjectList:
			for _, o := range l.Items {
				left = append(left, "scaledobject "+o.Name)
			}
		}
	}
	s := &corev1.Service{}
	if err := kube.Get(a.t.Context(), client.ObjectKey{Namespace: a.ns, Name: webserver}, s); err == nil {
		if injector.Intercepted(s) || s.Annotations[injector.RedirectAnnotation] != "" {
			left = append(left, fmt.Sprintf("selector %v, annotations %v", s.Spec.Selector, s.Annotations))
		}
	} else if !apierrors.IsNotFound(err) {
		a.t.Fatal(err)
	}
	if len(left) > 0 {
		return fmt.Errorf("still there: %s", strings.Join(left, ", "))
	}
	return nil
}
