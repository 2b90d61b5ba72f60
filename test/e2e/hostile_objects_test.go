// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// TestHostilePorts: a Service with 3,000 ports is skipped, and harms no controller.
func TestHostilePorts(t *testing.T) {
	t.Parallel()
	s := &stack{t: t, ns: newNamespace(t)}
	many := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "many", Labels: map[string]string{injector.OptInLabel: "true"}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}},
	}
	for i := range int32(3000) {
		many.Spec.Ports = append(many.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Port: 1000 + i})
	}
	if err := s.editor().Create(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	s.told("3000 ports, and at most 50")
	s.app("web", 8080, nil) // one that follows is injected as ever
	s.redirected("web")
	controllers(t) // none has restarted
}

// TestHostileOptIn: who may edit Services alone puts nothing to sleep, and who may edit everything only what his Service selects.
func TestHostileOptIn(t *testing.T) {
	t.Parallel()
	s := &stack{t: t, ns: newNamespace(t)}
	for _, name := range []string{"web", "worker"} {
		s.app(name, 8080, nil)
		kubectl(t, "label", "service", "-n", s.ns, name, "scale-to-zero-")
		s.cooldown(name, "1s")
	}
	patch := func(annotations string) client.Patch {
		return client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"scale-to-zero":"true"},"annotations":{`+annotations+`}}}`))
	}
	const worker = `"scale-to-zero/workload":"Deployment/worker"`
	service := func() *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "web"}}
	}
	clerk := s.account("clerk", rbacv1.RoleRef{}, rule("", "services"))
	for _, annotations := range []string{"", worker, `"scale-to-zero/asleep":"true"`} {
		denied(t, "rights on Services alone, with "+annotations, clerk.Patch(t.Context(), service(), patch(annotations)),
			"may not put an app to sleep here")
	}
	nobody := s.account("nobody", rbacv1.RoleRef{})
	denied(t, "no rights", nobody.Patch(t.Context(), service(), patch("")), "cannot patch resource")
	if err := s.editor().Patch(t.Context(), service(), patch(worker)); err != nil {
		t.Fatal(err)
	}
	s.told("names Deployment/worker, whose pods its selector app=web does not match")
	if up := s.replicas(); !maps.Equal(up, map[string]int32{"web": 1, "worker": 1}) {
		t.Errorf("replicas %v", up)
	}
}

// TestHostileNames: objects with names and labels of ours, made by their owner, are left alone; an event says so, and nobody writes without
// end.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	s := &stack{t: t, ns: newNamespace(t)}
	editor := s.editor(rule("discovery.k8s.io", "endpointslices"), rule("keda.sh", "scaledobjects"))
	meta := func(name string, labels map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: s.ns, Name: name, Labels: labels}
	}
	ports := []corev1.ServicePort{{Name: "main", Port: 80}}
	service := func(name string, labels, selector map[string]string) client.Object {
		return &corev1.Service{
			ObjectMeta: meta(name, labels), Spec: corev1.ServiceSpec{Selector: selector, Ports: ports},
		}
	}
	web := map[string]string{"app": "web"}
	direct := map[string]string{api.RoleLabel: api.RoleDirect, injector.ManagedByLabel: injector.ManagedBy, api.ServiceLabel: "web"}
	route := map[string]string{api.RoleLabel: api.RoleRoute, injector.ManagedByLabel: injector.ManagedBy, api.ServiceLabel: "web"}
	for _, o := range []client.Object{
		service("named-direct", nil, web),
		service("labelled-direct", direct, web),
		service("odd", direct, web),
		service("routes", route, web),
		service("intercepted", nil, map[string]string{"app": "web", injector.SentinelKey: injector.SentinelValue}),
		&discoveryv1.EndpointSlice{
			ObjectMeta:  meta("slice-scale-to-zero-ipv4", map[string]string{discoveryv1.LabelServiceName: "slice"}),
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.1.2.3"}}},
		},
		&keda.ScaledObject{
			ObjectMeta: meta("scaled-deployment", map[string]string{injector.ManagedByLabel: injector.ManagedBy}),
			Spec: keda.ScaledObjectSpec{
				ScaleTargetRef: keda.ScaleTarget{APIVersion: "apps/v1", Kind: "Deployment", Name: "scaled"},
				Triggers: []keda.Trigger{{Type: "cron", Metadata: map[string]string{
					"timezone": "UTC", "start": "0 0 29 2 *", "end": "1 0 29 2 *", "desiredReplicas": "2",
				}}},
			},
		},
	} {
		if err := editor.Create(t.Context(), o); err != nil {
			t.Fatalf("%T %s: %v", o, o.GetName(), err)
		}
	}
	for _, name := range []string{"named", "labelled", "slice", "scaled", "marked"} {
		s.app(name, 8080, nil)
	}
	kubectl(t, "annotate", "deployment", "-n", s.ns, "marked", "--overwrite", injector.ReplicasAnnotation+"=2147483648",
		injector.AutoscalerAnnotation+"=HorizontalPodAutoscaler/x")
	for _, name := range []string{"named-direct", "labelled-direct", "slice-scale-to-zero-ipv4"} {
		s.told(name)
	}
	s.redirected("marked")
	s.quiet(editor)
}

// quiet fails if the objects of the namespace change again and again, or if our accounts write there again and again, for 15 s. Apps that
// fall asleep, and events, take a few writes.
func (s *stack) quiet(c client.Client) {
	s.t.Helper()
	w, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		s.t.Fatal(err)
	}
	written := map[string]int{}
	over := time.After(15 * time.Second)
	before := s.writes()
	changes := make(chan string)
	for kind, list := range map[string]client.ObjectList{
		"Service": &corev1.ServiceList{}, "EndpointSlice": &discoveryv1.EndpointSliceList{}, "Deployment": &appsv1.DeploymentList{},
		"ScaledObject": &keda.ScaledObjectList{},
	} {
		if err := c.List(s.t.Context(), list, client.InNamespace(s.ns)); err != nil {
			s.t.Fatal(err)
		}
		watching, err := w.Watch(s.t.Context(), list, client.InNamespace(s.ns))
		if err != nil {
			s.t.Fatal(err)
		}
		defer watching.Stop()
		go func() {
			for e := range watching.ResultChan() {
				if o, ok := e.Object.(client.Object); ok && e.Type != "ADDED" {
					select {
					case changes <- kind + "/" + o.GetName():
					case <-s.t.Context().Done():
						return
					}
				}
			}
		}()
	}
	for {
		select {
		case what := <-changes:
			written[what]++
			continue
		case <-over:
		}
		break
	}
	for what, n := range written {
		if n > 10 {
			s.t.Errorf("%s was written %d times in 15 s", what, n)
		}
	}
	if n := s.writes() - before; before >= 0 && n > 60 {
		s.t.Errorf("our accounts made %d writes in 15 s", n)
	}
	s.t.Logf("written in 15 s: %v", written)
}

// writes returns how many requests to write our accounts have made in the namespace, or -1 if there is no audit log.
func (s *stack) writes() int {
	s.t.Helper()
	path := os.Getenv("SCALE_TO_ZERO_AUDIT_LOG")
	if path == "" {
		return -1
	}
	log, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	write := regexp.MustCompile(`"verb":"(create|update|patch|delete)".*"namespace":"` + s.ns + `"`)
	return len(write.FindAll(log, -1))
}

// TestHostileWebhook: an app that sleeps is restored when the API server begins to call it, and one that it calls already is skipped.
func TestHostileWebhook(t *testing.T) {
	t.Parallel()
	s := &stack{t: t, ns: newNamespace(t)}
	s.app("web", 8080, nil)
	s.redirected("web")
	s.asleep()
	hook := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: s.ns}}
	for _, name := range []string{"web", "later"} {
		hook.Webhooks = append(hook.Webhooks, admissionv1.ValidatingWebhook{
			Name: name + ".example.com", SideEffects: new(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: s.ns, Name: name}},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{"CREATE"},
				Rule:       admissionv1.Rule{APIGroups: []string{"example.com"}, APIVersions: []string{"v1"}, Resources: []string{"nothing"}},
			}},
		})
	}
	if err := kube.Create(t.Context(), hook); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kube.Delete(t.Context(), hook) })
	s.app("later", 8080, nil)
	for _, name := range []string{"web", "later"} {
		eventually(t, name+" is up, and leads to its pods", func() error {
			service := &corev1.Service{}
			if err := kube.Get(t.Context(), client.ObjectKey{Namespace: s.ns, Name: name}, service); err != nil {
				return err
			}
			if n := s.replicas()[name]; n != 1 || injector.Intercepted(service) {
				return fmt.Errorf("%d replicas, selector %v", n, service.Spec.Selector)
			}
			return nil
		})
	}
	const why = "the API server calls it for ValidatingWebhookConfiguration/"
	s.told("InjectionSkipped: Not injected: " + why)
	s.told("without scale-to-zero: " + why)
}
