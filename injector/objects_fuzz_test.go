// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"math/rand/v2"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// author writes objects with labels, names and annotations that only we should write, and with parts missing.
type author struct{ *rand.Rand }

func pickOne[T any](a author, all ...T) T { return all[a.IntN(len(all))] }

func (a author) value() string {
	return pickOne(a, "", "true", "false", "ready", "web=web-scale-to-zero", "web=,=x,web", "web=web,web=api", "-1", "0", "5", "2147483648",
		"x\x00y", "HorizontalPodAutoscaler/web", "Deployment/web", "{", "null", `{"metadata":{}}`, `{"metadata":null,"asleep":true}`,
		`{"metadata":{"a":"b"}}`,
		"2026-01-02T03:04:05Z", UnprovenYet, ManagedBy, "web", api.RoleRoute, api.RoleDirect, RoleAlias)
}

// entries returns labels or annotations; nil, now and then.
func (a author) entries(keys ...string) map[string]string {
	if a.IntN(4) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, key := range keys {
		if a.IntN(3) == 0 {
			out[key] = a.value()
		}
	}
	return out
}

func (a author) meta(name string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Namespace: "apps", Name: name, UID: "uid-1",
		Labels: a.entries(OptInLabel, ManagedByLabel, ServiceLabel, api.RoleLabel, EnabledAnnotation, RaisedCPU),
		Annotations: a.entries(OptInLabel, EnabledAnnotation, RedirectAnnotation, AliasesAnnotation, ReplicasAnnotation, AutoscalerAnnotation,
			TriggerAnnotation, ScalingAnnotation, FailOpenAnnotation, UnprovenAnnotation, UnusedAnnotation, SinceAnnotation, Prefix+"workload",
			Prefix+"asleep", Prefix+"min-replicas", "nginx.ingress.kubernetes.io/default-backend", "alb.ingress.kubernetes.io/actions.a"),
	}
	if a.IntN(3) == 0 {
		m.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: pickOne(a, "", "v1", "apps/v1"), Kind: pickOne(a, "Service", "Deployment", ""), Name: pickOne(a, "web", "x"),
			UID: "uid-1", Controller: pickOne(a, nil, new(true), new(false)),
		}}
	}
	return m
}

func (a author) service(name string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: a.meta(name)}
	s.Spec.Selector = a.entries("app", SentinelKey)
	s.Spec.ClusterIP = pickOne(a, "", "None", "10.0.0.7")
	s.Spec.Type = pickOne(a, "", corev1.ServiceTypeClusterIP, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName)
	s.Spec.IPFamilies = pickOne(a, nil, []corev1.IPFamily{corev1.IPv4Protocol}, []corev1.IPFamily{"", corev1.IPv6Protocol})
	for range a.IntN(3) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
			Name: pickOne(a, "", "http", "tcp"), Port: pickOne[int32](a, 0, 80), Protocol: pickOne(a, "", corev1.ProtocolTCP, corev1.ProtocolUDP),
			AppProtocol: pickOne(a, nil, new(""), new("kubernetes.io/h2c")),
		})
	}
	return s
}

func (a author) ingress() networkingv1.Ingress {
	i := networkingv1.Ingress{ObjectMeta: a.meta("front")}
	backend := func() networkingv1.IngressBackend {
		if a.IntN(3) == 0 {
			return networkingv1.IngressBackend{Resource: pickOne(a, nil, &corev1.TypedLocalObjectReference{})}
		}
		name := pickOne(a, "web", "", "web-scale-to-zero", "web-direct")
		return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name}}
	}
	if a.IntN(2) == 0 {
		i.Spec.DefaultBackend = new(backend())
	}
	for range a.IntN(3) {
		rule := networkingv1.IngressRule{}
		if a.IntN(3) > 0 {
			rule.HTTP = &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Backend: backend()}}}
		}
		i.Spec.Rules = append(i.Spec.Rules, rule)
	}
	return i
}

func (a author) scaledObject() keda.ScaledObject {
	so := keda.ScaledObject{ObjectMeta: a.meta(pickOne(a, "web-deployment", "mine"))}
	so.Spec.ScaleTargetRef = keda.ScaleTarget{Kind: pickOne(a, "", "Deployment"), Name: pickOne(a, "", "web")}
	so.Spec.MinReplicaCount = pickOne(a, nil, new(int32(0)), new(int32(-1)), new(int32(3)))
	so.Spec.MaxReplicaCount = pickOne(a, nil, new(int32(0)), new(int32(2)))
	so.Spec.Advanced = pickOne(a, nil, &keda.Advanced{}, &keda.Advanced{ScalingModifiers: &keda.ScalingModifiers{}})
	for range a.IntN(3) {
		so.Spec.Triggers = append(so.Spec.Triggers, keda.Trigger{
			Type: pickOne(a, "", externalPush), Name: pickOne(a, "", triggerName), Metadata: pickOne(a, nil, map[string]string{"a": "b"}),
		})
	}
	return so
}

// admitObjects writes whole objects of an author who uses what is ours: nothing panics, admission twice equals admission once, and no
// object keeps what only the controller may write.
func admitObjects(t *testing.T, seed uint64, byController bool) {
	t.Helper()
	a := author{rand.New(rand.NewPCG(seed, 5))}
	service, old := a.service("web"), pickOne(a, nil, a.service("web"))
	if err := Admit(service, old, byController); err == nil {
		again := service.DeepCopy()
		if err := Admit(again, old, byController); err != nil || !equality.Semantic.DeepEqual(again, service) {
			t.Errorf("a Service again: %v\n%+v\n%+v", err, again, service)
		}
		if old == nil && (Intercepted(service) || service.Annotations[RedirectAnnotation] != "") {
			t.Errorf("a new Service is redirected: %+v", service)
		}
	}
	ingress, was := new(a.ingress()), pickOne(a, nil, new(a.ingress()))
	if err := AdmitIngress(ingress, was, byController); err == nil {
		again := ingress.DeepCopy()
		if err := AdmitIngress(again, was, byController); err != nil || !equality.Semantic.DeepEqual(again, ingress) {
			t.Errorf("an Ingress again: %v\n%+v\n%+v", err, again, ingress)
		}
	}
	so, before := new(a.scaledObject()), pickOne(a, nil, new(a.scaledObject()))
	AdmitScaledObject(so, before, byController)
	again := so.DeepCopy()
	if AdmitScaledObject(again, before, byController); !equality.Semantic.DeepEqual(again, so) {
		t.Errorf("a ScaledObject again:\n%+v\n%+v", again, so)
	}
	_ = AdmitNamespace(&corev1.Namespace{ObjectMeta: a.meta("apps")})
	Warnings("Service", service, a.IntN(2) == 0)
	IngressWarnings(ingress)
	KeepReplicas(a.meta("web").Annotations, int32(a.IntN(3)), int32(a.IntN(3)))
}

func TestAdmitObjects(t *testing.T) {
	for seed := range uint64(500) {
		admitObjects(t, seed, seed%2 == 0)
	}
}

func FuzzAdmitObjects(f *testing.F) {
	f.Add(uint64(0), true)
	f.Fuzz(admitObjects)
}

// planForeignObjects plans for an app among whose objects are some that only look like ours. Nothing panics, and the same question is
// not asked for ever.
func planForeignObjects(t *testing.T, seed uint64) {
	t.Helper()
	a := author{rand.New(rand.NewPCG(seed, 6))}
	w := newWorld(t)
	if a.IntN(2) == 0 {
		w.run()
	}
	o := w.observe()
	if a.IntN(3) > 0 {
		o.Service = a.service("web")
	}
	w.service = o.Service
	o.Namespace.ObjectMeta = a.meta("apps")
	o.Ingresses = []networkingv1.Ingress{a.ingress(), a.ingress()}
	o.Direct, o.Alias = pickOne(a, o.Direct, Companion{Foreign: true}, Companion{Service: a.service("web-direct")}), pickOne(a, o.Alias,
		Companion{Foreign: true}, Companion{Service: a.service("web-scale-to-zero")})
	w.ingresses, w.siblings = o.Ingresses, []corev1.Service{*a.service("api"), *a.service("web-direct")}
	w.workload.Annotations = a.meta("web").Annotations
	target := w.target()
	target.ScaledObjects = []keda.ScaledObject{a.scaledObject(), a.scaledObject()}
	target.HPAs = []autoscalingv2.HorizontalPodAutoscaler{{ObjectMeta: a.meta("web")}}
	p, q := PlanService(o)
	for range 40 {
		if q.Kind == NoQuestion {
			break
		}
		w.answer(&o, q)
		if q.Kind == AskTarget {
			o.Answers.Target = &target
		}
		p, q = PlanService(o)
	}
	if q.Kind != NoQuestion {
		t.Errorf("it keeps asking %d", q.Kind)
	}
	for _, object := range p.Delete {
		if s, ok := object.(*corev1.Service); ok && s != o.Direct.Service && s != o.Alias.Service {
			t.Errorf("it deletes Service %s", s.Name)
		}
	}

	s := newScaledWorld(t)
	s.workload.Annotations = a.meta("web").Annotations
	s.asks = pickOne(a, s.asks, nil)
	observed := s.observe()
	observed.ScaledObjects, observed.HPAs = target.ScaledObjects, target.HPAs
	if so := &target.ScaledObjects[0]; OwnScaledObject(so, s.workload) {
		observed.ScaledObject = so
	}
	for range 3 { // questions of a workload are answered elsewhere; what is asked first must not panic
		if _, q := PlanWorkload(observed); q == NoWorkloadQuestion {
			break
		}
		observed.Answers.HPA = &HPAAnswer{}
	}
}

func TestPlanForeignObjects(t *testing.T) {
	for seed := range uint64(500) {
		planForeignObjects(t, seed)
	}
}

func FuzzPlanForeignObjects(f *testing.F) {
	f.Add(uint64(0))
	f.Fuzz(planForeignObjects)
}
