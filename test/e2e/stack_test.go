// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// stack is a web app that asks an API that asks a database, and an app beside them; all are opted in.
type stack struct {
	t  *testing.T
	ns string
}

func newStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{t: t, ns: newNamespace(t)}
	s.app("web", 8080, map[string]string{"CALLS": "http://api/chain"})
	s.app("api", 8080, map[string]string{"CALLS": "tcp://db"})
	s.app("db", 9000, map[string]string{"TCP_PORT": "9000"})
	s.app("beside", 8080, nil)
	s.asleep()
	return s
}

// app makes one app, which listens after a second.
func (s *stack) app(name string, port int32, env map[string]string) {
	s.t.Helper()
	s.create(s.service(name, port), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: name},
		Spec:       appsv1.DeploymentSpec{Selector: selects(name), Template: template(name, port, env)},
	})
}

// awakeApp makes one app that stays awake.
func (s *stack) awakeApp(name string) {
	s.t.Helper()
	service := s.service(name, 8080)
	service.Annotations["scale-to-zero/cooldown"] = "20m"
	s.create(service, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: name},
		Spec:       appsv1.DeploymentSpec{Selector: selects(name), Template: template(name, 8080, nil)},
	})
}

// statefulApp makes one app with a StatefulSet.
func (s *stack) statefulApp(name string) {
	s.t.Helper()
	s.create(s.service(name, 8080), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: name},
		Spec:       appsv1.StatefulSetSpec{Selector: selects(name), Template: template(name, 8080, nil)},
	})
}

func (s *stack) create(objects ...client.Object) {
	s.t.Helper()
	for _, o := range objects {
		if err := kube.Create(s.t.Context(), o); err != nil {
			s.t.Fatal(err)
		}
	}
}

func selects(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

// service is an app's Service, opted in.
func (s *stack) service(app string, port int32) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.ns, Name: app, Labels: map[string]string{"scale-to-zero": "true"},
			Annotations: map[string]string{"scale-to-zero/cooldown": "3s"},
		},
		Spec: corev1.ServiceSpec{
			Selector: selects(app).MatchLabels, Ports: []corev1.ServicePort{{Name: "main", Port: 80, TargetPort: intstr.FromInt32(port)}},
		},
	}
}

// template is of an app's pods.
func template(app string, port int32, env map[string]string) corev1.PodTemplateSpec {
	vars := []corev1.EnvVar{{Name: "NAME", Value: app}, {Name: "START_DELAY", Value: "1s"}}
	for _, key := range slices.Sorted(maps.Keys(env)) {
		vars = append(vars, corev1.EnvVar{Name: key, Value: strings.Replace(env[key], "tcp://db", "tcp://db:80", 1)})
	}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: selects(app).MatchLabels},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(1)),
			Containers: []corev1.Container{{
				Name: "app", Image: os.Getenv("E2E_APP_IMAGE"), Env: vars, Ports: []corev1.ContainerPort{{ContainerPort: port}},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}},
			}},
		},
	}
}

// replicas are those of each app that should have some.
func (s *stack) replicas() map[string]int32 {
	s.t.Helper()
	var list appsv1.DeploymentList
	if err := kube.List(s.t.Context(), &list, client.InNamespace(s.ns)); err != nil {
		s.t.Fatal(err)
	}
	all := map[string]int32{}
	for _, d := range list.Items {
		if *d.Spec.Replicas > 0 {
			all[d.Name] = *d.Spec.Replicas
		}
	}
	return all
}

// redirected waits until an app's Service leads to the interceptors.
func (s *stack) redirected(app string) {
	s.t.Helper()
	eventually(s.t, app+" is redirected", func() error {
		service := &corev1.Service{}
		if err := kube.Get(s.t.Context(), client.ObjectKey{Namespace: s.ns, Name: app}, service); err != nil {
			return err
		}
		if !injector.Intercepted(service) {
			return fmt.Errorf("selector %v", service.Spec.Selector)
		}
		return nil
	})
}

// asleep waits until all apps sleep, and their pods are gone.
func (s *stack) asleep() {
	s.t.Helper()
	eventually(s.t, "all sleep", func() error {
		if up := s.replicas(); len(up) > 0 {
			return fmt.Errorf("replicas %v", up)
		}
		var pods corev1.PodList
		if err := kube.List(s.t.Context(), &pods, client.InNamespace(s.ns)); err != nil {
			return err
		}
		for _, p := range pods.Items {
			if len(p.OwnerReferences) > 0 { // the clients have no owner
				return fmt.Errorf("pod %s is there", p.Name)
			}
		}
		return nil
	})
}

// visit asks the web app once all sleep.
func (s *stack) visit() {
	s.t.Helper()
	s.asleep()
	if got := get(s.t, "http://web."+s.ns+"/chain")[0]; got.Status != http.StatusOK || got.Body != "web api db\n" {
		s.t.Errorf("got %+v", got)
	}
}

func (s *stack) learned(service string) string {
	s.t.Helper()
	return kubectl(s.t, "get", "endpointslices", "-n", s.ns, service+"-scale-to-zero-ipv4", "-o",
		`jsonpath={.metadata.annotations.scale-to-zero/learned}`)
}

// TestLearnsWhatWakesTogether tests that two wakes teach the interceptors a chain of three apps, and that they know it after a
// restart of all of them. An app that was called once is not woken.
func TestLearnsWhatWakesTogether(t *testing.T) {
	s := newStack(t)
	for i := range 2 {
		s.visit()
		if i == 0 { // once is not enough
			// The web app may fall asleep before it has its answer; that it has called is enough.
			_, _ = command(t.Context(), os.Getenv("KUBECTL"), "exec", "-n", s.ns, "deployment/web", "--", "/app", "get", "http://beside/")
			eventually(t, "the call is seen", func() error {
				if got := s.learned("web"); !strings.Contains(got, `"Deployment/beside":{"found":1`) {
					return fmt.Errorf("learned %s", got)
				}
				return nil
			})
		}
	}
	for service, callee := range map[string]string{"web": "api", "api": "db"} {
		eventually(t, service+" has taught what it calls", func() error {
			learned, err := api.DecodeLearned(s.learned(service))
			if err != nil || !slices.Equal(learned.Together(), []string{"Deployment/" + callee}) {
				return fmt.Errorf("%v, %w", learned, err)
			}
			return nil
		})
	}
	for _, when := range []string{"the third wake", "all interceptors have been restarted"} {
		s.visit()
		events := kubectl(t, "get", "events", "-n", s.ns, "--field-selector", "reason=WakeRequested", "-o", "jsonpath={..message}")
		for _, other := range []string{"api", "db"} {
			if text := "waking Deployment/" + other + " together with Deployment/web"; !strings.Contains(events, text) {
				t.Errorf("%s: no event %q in %s", when, text, events)
			}
		}
		if strings.Contains(events, "waking Deployment/beside together") {
			t.Errorf("%s: an app that was called once is woken: %s", when, events)
		}
		if when == "the third wake" {
			s.asleep()
			kubectl(t, "delete", "events", "-n", s.ns, "--all")
			kubectl(t, "delete", "pods", "-n", release, "-l", "app.kubernetes.io/component=interceptor")
			kubectl(t, "rollout", "status", "-n", release, "deployment/"+release+"-interceptor")
		}
	}
}
