// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// Triggers that an owner's ScaledObject may have.
const (
	cron = `{"type":"cron","name":"office","metadata":{"timezone":"Europe/Berlin","start":"0 8 * * 1-5","end":"0 18 * * 1-5",` +
		`"desiredReplicas":"2"}}`
	cpu   = `{"type":"cpu","metricType":"Utilization","metadata":{"value":"60"}}`
	queue = `{"type":"rabbitmq","useCachedMetrics":true,"authenticationRef":{"name":"queue"},"metadata":{"queueName":"jobs","value":"5"}}`
)

// counts are the owner's bounds.
const counts = `"minReplicaCount":0,"maxReplicaCount":4`

// scaledObject returns the spec of the chart's ScaledObject.
func scaledObject(counts string, cooldown int, triggers ...string) string {
	return fmt.Sprintf(`{%s,"pollingInterval":15,"cooldownPeriod":%d,"advanced":{"horizontalPodAutoscalerConfig":{"name":"web","behavior":`+
		`{"scaleDown":{"stabilizationWindowSeconds":60,"policies":[{"type":"Percent","value":50,"periodSeconds":30}]}}}},"triggers":[%s]}`,
		counts, cooldown, strings.Join(triggers, ","))
}

// beside is a chart whose owner has a ScaledObject.
func beside() values {
	return values{replicas: 1, note: "first", scaledObject: scaledObject(counts, 120, cron, cpu)}
}

func (a *app) scaledObject() *unstructured.Unstructured {
	a.t.Helper()
	so := a.object("ScaledObject")
	if err := a.get("web", so); err != nil {
		a.t.Fatal(err)
	}
	return so
}

// contents is all of the ScaledObject but its version, when its managers have written, and what is ours. A client-side apply sends the
// chart's triggers, so the API server notes the time, even though admission leaves nothing else to be written. A replace takes the
// ownership of our annotation, which admission keeps.
func (a *app) contents() map[string]any {
	so := a.scaledObject()
	so.SetResourceVersion("")
	managers := slices.DeleteFunc(so.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool { return m.Manager == injector.ManagedBy })
	for i := range managers {
		managers[i].Time = nil
	}
	slices.SortFunc(managers, func(a, b metav1.ManagedFieldsEntry) int { return strings.Compare(a.Manager, b.Manager) })
	so.SetManagedFields(managers)
	return so.Object
}

// chartSpec returns the spec of the chart's ScaledObject.
func (a *app) chartSpec(v values) map[string]any {
	a.t.Helper()
	all, err := a.render(v)
	if err != nil {
		a.t.Fatal(err)
	}
	so := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(all["ScaledObject"]), so); err != nil {
		a.t.Fatal(err)
	}
	return so.Object["spec"].(map[string]any)
}

// triggered checks that the ScaledObject is the chart's with our trigger as its last one, which is the one that we ask for.
func (a *app) triggered(v values) error {
	so := a.scaledObject()
	spec := so.Object["spec"].(map[string]any)
	triggers := spec["triggers"].([]any)
	var asked struct {
		Metadata map[string]any `json:"metadata"`
	}
	if err := json.Unmarshal([]byte(so.GetAnnotations()[injector.TriggerAnnotation]), &asked); err != nil {
		return fmt.Errorf("reading the annotation: %w: %v", err, so.GetAnnotations())
	}
	ours := map[string]any{"type": "external-push", "name": "scale-to-zero", "metadata": asked.Metadata}
	if err := same("the last trigger", any(ours), triggers[len(triggers)-1]); err != nil {
		return err
	}
	spec["triggers"] = triggers[:len(triggers)-1]
	return errors.Join(same("the rest of the ScaledObject", a.chartSpec(v), spec), a.owners(so))
}

// owners checks that we own nothing of a ScaledObject but our annotation.
func (a *app) owners(so *unstructured.Unstructured) error {
	for _, m := range so.GetManagedFields() {
		if m.Manager != injector.ManagedBy {
			continue
		}
		want := fmt.Sprintf(`{"f:metadata":{"f:annotations":{"f:%s":{}}}}`, injector.TriggerAnnotation)
		if fields := m.FieldsV1.GetRawString(); m.Operation != metav1.ManagedFieldsOperationUpdate || fields != want {
			return fmt.Errorf("we own %s", fields)
		}
	}
	return nil
}

// untriggered checks that the ScaledObject is the chart's.
func (a *app) untriggered(v values) error {
	so := a.scaledObject()
	var err error
	if value, left := so.GetAnnotations()[injector.TriggerAnnotation]; left {
		err = fmt.Errorf("it has our annotation %q", value)
	}
	return errors.Join(err, same("the ScaledObject", any(a.chartSpec(v)), so.Object["spec"]))
}

// triggerOwners returns the field managers of the triggers.
func (a *app) triggerOwners() string {
	a.t.Helper()
	var owners []string
	for _, m := range a.scaledObject().GetManagedFields() {
		if strings.Contains(m.FieldsV1.GetRawString(), `"f:triggers"`) {
			owners = append(owners, m.Manager)
		}
	}
	return strings.Join(owners, ", ")
}

// isBeside checks that the app is in a state, that its ScaledObject still belongs to the tool, and that the tool sees no drift in it.
func (a *app) isBeside(s state, tool tool, v values) error {
	check := a.untriggered
	if s.intercepted {
		check = a.triggered
	}
	drift := ""
	var err error
	if tool.drift != nil {
		drift, err = tool.drift(a, "ScaledObject", v)
	}
	return errors.Join(err, a.is(s, tool), check(v), same("owners of the triggers", tool.manager, a.triggerOwners()), same("drift", "", drift))
}

func statesBeside(tool tool, chart values) []state {
	out := chart
	out.optedOut = true
	return append(states()[:1],
		state{"injected", true, func(a *app) {
			listInterceptors(a.t, "198.18.0.2")
			eventually(a.t, "the Service is intercepted", a.intercepted)
			eventually(a.t, "the ScaledObject has our trigger", func() error { return a.triggered(chart) })
		}},
		states()[2], states()[3],
		state{"opted out", false, func(a *app) {
			eventually(a.t, "it is applied", func() error {
				said, err := tool.apply(a, out)
				if err != nil && !tool.replaces { // a replace may meet the write that removes our trigger
					a.t.Fatalf("%v\n%s", err, said)
				}
				return err
			})
			eventually(a.t, "the ScaledObject is the chart's", func() error { return a.untriggered(out) })
		}},
	)
}

// newSpec is a change of the chart's ScaledObject.
type newSpec struct{ name, spec string }

// newSpecs are applied one after the other, in one state.
func newSpecs(in state) []newSpec {
	switch in.name {
	case "injected":
		return []newSpec{
			{"a trigger is added", scaledObject(counts, 120, cron, cpu, queue)},
			{"triggers are reordered", scaledObject(counts, 120, queue, cpu, cron)},
		}
	case "asleep":
		return []newSpec{
			{"triggers are removed", scaledObject(counts, 120, cron)},
			{"a trigger is replaced", scaledObject(counts, 120, queue)},
		}
	case "awake again":
		return []newSpec{
			{"other counts, and a trigger has another target", scaledObject(`"idleReplicaCount":0,"minReplicaCount":2,"maxReplicaCount":8`, 60,
				cron, strings.Replace(cpu, "60", "80", 1))},
		}
	}
	return nil
}

// TestScaledObject: in every state of an app with a ScaledObject of its owner's, the tool that has applied its chart finds no difference
// in it. It applies the chart again, unchanged or with another ScaledObject, without a conflict and without undoing anything. When the
// app is opted out, the ScaledObject is what it was before.
func TestScaledObject(t *testing.T) {
	for _, tool := range tools() {
		t.Run(tool.name, func(t *testing.T) {
			chart := beside()
			a := installed(t, tool, chart)
			plain := a.scaledObject()
			now := chart
			for _, s := range statesBeside(tool, chart) {
				if s.name == "opted out" {
					now = chart
					now.optedOut = true
				}
				s.enter(a)
				before, count := a.contents(), *a.deployment().Spec.Replicas
				said, err := tool.apply(a, now)
				if tool.unchanged == "%s/web unchanged" && strings.Contains(said, "scaledobject.keda.sh/web configured") != s.intercepted {
					t.Errorf("%s: %s", s.name, said) // it says `configured` although nothing changes
				}
				if err := errors.Join(err, a.isBeside(s, tool, now), same("a re-apply changed", before, a.contents()),
					same("a re-apply changed the replica count", count, *a.deployment().Spec.Replicas)); err != nil {
					t.Errorf("%s, the same chart: %v\n%s", s.name, err, said)
				}
				for _, next := range newSpecs(s) {
					now.scaledObject = next.spec
					said, err := tool.apply(a, now)
					if err := errors.Join(err, a.isBeside(s, tool, now)); err != nil {
						t.Errorf("%s, %s: %v\n%s", s.name, next.name, err, said)
					}
				}
			}
			after := a.scaledObject()
			if err := errors.Join(same("annotations", plain.GetAnnotations(), after.GetAnnotations()),
				same("labels", plain.GetLabels(), after.GetLabels()), same("spec", plain.Object["spec"], after.Object["spec"])); err != nil {
				t.Errorf("after it was opted out: %v", err)
			}
		})
	}
}

// TestScaledObjectChecksBite: the checks of TestScaledObject fail if a controller writes the trigger itself instead of leaving that to
// admission. The design avoids exactly this.
func TestScaledObjectChecksBite(t *testing.T) {
	for _, tool := range tools() {
		if tool.drift == nil || tool.manager == argoManager {
			continue
		}
		t.Run(tool.name, func(t *testing.T) {
			chart := beside()
			a := installed(t, tool, chart)
			if err := a.isBeside(states()[0], tool, chart); err != nil {
				t.Fatal(err)
			}
			trigger := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"triggers":[`+cron+`,`+cpu+`,`+queue+`]}}`))
			if err := kube.Patch(t.Context(), a.scaledObject(), trigger, client.FieldOwner("somebody-else")); err != nil {
				t.Fatal(err)
			}
			if owners := a.triggerOwners(); owners == tool.manager {
				t.Errorf("%s owns the triggers", owners)
			}
			drift, err := tool.drift(a, "ScaledObject", chart)
			if tool.forced == nil && drift == "" || tool.forced != nil && !isConflict(err) {
				t.Errorf("drift %q, %v", drift, err)
			}
			said, err := tool.apply(a, chart)
			if isConflict(err) != (tool.forced != nil) {
				t.Errorf("conflict: %t: %v", isConflict(err), err)
			}
			if err == nil && a.untriggered(chart) != nil {
				t.Errorf("the trigger is left:\n%s", said)
			}
		})
	}
}

// TestScaledObjectWriters: others who write the ScaledObject keep our trigger, and own none of its triggers by that. The exception is
// `kubectl replace`, as with the Service: what it sends lacks our trigger, so it becomes the owner, and a server-side apply has to be
// forced once.
func TestScaledObjectWriters(t *testing.T) {
	tool, chart := tools()[1], beside()
	a := installed(t, tool, chart)
	s := statesBeside(tool, chart)[1]
	s.enter(a)

	so := a.scaledObject() // as KEDA writes it, in whole
	so.SetLabels(map[string]string{"scaledobject.keda.sh/name": "web"})
	if err := errors.Join(kube.Update(t.Context(), so, client.FieldOwner("keda")), a.isBeside(s, tool, chart)); err != nil {
		t.Fatalf("KEDA writes it: %v", err)
	}
	so = a.scaledObject() // a user deletes everything that is not the chart's
	triggers := so.Object["spec"].(map[string]any)["triggers"].([]any)
	so.Object["spec"].(map[string]any)["triggers"] = triggers[:2]
	so.SetAnnotations(map[string]string{"note": "first"})
	if err := errors.Join(kube.Update(t.Context(), so, client.FieldOwner("somebody")), a.triggered(chart)); err != nil {
		t.Fatalf("a user removes our trigger: %v", err)
	}
	if said, err := tool.forced(a, chart); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	all, err := a.render(chart)
	if err != nil {
		t.Fatal(err)
	}
	c := a.command
	c.stdin = all["ScaledObject"]
	if _, err := c.run("kubectl", "replace", "--namespace="+a.ns, "--filename=-"); err != nil {
		t.Fatal(err)
	}
	if err := a.triggered(chart); err != nil {
		t.Errorf("a replace: %v", err)
	}
	if _, err := tool.apply(a, chart); !isConflict(err) {
		t.Errorf("got %v, want a conflict", err)
	}
	if _, err := tool.forced(a, chart); err != nil {
		t.Fatal(err)
	}
	before := a.contents()
	_, err = tool.apply(a, chart)
	if err := errors.Join(err, a.isBeside(s, tool, chart), same("a re-apply changed", before, a.contents())); err != nil {
		t.Errorf("after it was forced: %v", err)
	}
}

// TestScaledObjectTarget: when the ScaledObject is given another workload, it loses our trigger, and the app gets a ScaledObject of ours.
func TestScaledObjectTarget(t *testing.T) {
	chart := beside()
	a := installed(t, tools()[1], chart)
	statesBeside(tools()[1], chart)[1].enter(a)
	other := a.deployment()
	other.ObjectMeta = metav1.ObjectMeta{Namespace: a.ns, Name: "other"}
	retarget := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"scaleTargetRef":{"name":"other"}}}`))
	if err := errors.Join(kube.Create(t.Context(), other), kube.Patch(t.Context(), a.scaledObject(), retarget)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has no trigger of ours", func() error {
		if so := a.scaledObject(); len(so.Object["spec"].(map[string]any)["triggers"].([]any)) != 2 {
			return fmt.Errorf("triggers %v", so.Object["spec"])
		}
		return nil
	})
	eventually(t, "we scale the app", a.floor(0))
}

// untold returns how often each object was told that the trigger is missing.
func (a *app) untold() map[string]int {
	a.t.Helper()
	var events eventsv1.EventList
	if err := kube.List(a.t.Context(), &events, client.InNamespace(a.ns)); err != nil {
		a.t.Fatal(err)
	}
	told := map[string]int{}
	for _, e := range events.Items {
		if e.Reason == injector.ReasonAutoscaler && strings.Contains(e.Note, "has no trigger of scale-to-zero yet") {
			told[e.Regarding.Kind]++
			if e.Series != nil {
				told[e.Regarding.Kind] += int(e.Series.Count)
			}
		}
	}
	return told
}

// TestScaledObjectWebhookAway: while the webhook is away, a new chart takes our trigger out. If the Service is still redirected, that is
// told once. The trigger is back when the webhook is.
func TestScaledObjectWebhookAway(t *testing.T) {
	chart, changed := beside(), beside()
	changed.scaledObject = scaledObject(counts, 120, cron, cpu, queue)
	apps := map[*app]tool{}
	for _, tool := range tools() {
		if tool.manager != argoManager || tool.replaces { // the others apply as kubectl does
			apps[installed(t, tool, chart)] = tool
		}
	}
	for a, tool := range apps {
		statesBeside(tool, chart)[1].enter(a)
	}
	back := withoutWebhook(t)
	for a, tool := range apps {
		if said, err := tool.apply(a, changed); err != nil {
			t.Fatalf("%s: %v\n%s", tool.name, err, said)
		}
		if a.triggered(changed) == nil {
			t.Errorf("%s: the trigger is there without admission", tool.name)
		}
	}
	for a, tool := range apps {
		if !tool.threeWay { // these take out the sentinel too
			continue
		}
		eventually(t, tool.name+": it is told that the trigger is missing", func() error {
			return same("told", map[string]int{"Deployment": 1, "Service": 1, "ScaledObject": 1}, a.untold())
		})
		a.scaled(0)
		a.scaled(1)
	}
	back()
	for a, tool := range apps {
		eventually(t, tool.name+": the trigger is back", func() error { return a.triggered(changed) })
		if err := a.isBeside(states()[1], tool, changed); err != nil {
			t.Errorf("%s: %v", tool.name, err)
		}
		for kind, n := range a.untold() {
			if n != 1 {
				t.Errorf("%s: %s was told %d times", tool.name, kind, n)
			}
		}
	}
}

// TestScaledObjectLeft: if the webhook is away when the last Service of an app goes, our trigger goes when the webhook is back.
func TestScaledObjectLeft(t *testing.T) {
	chart := beside()
	a := installed(t, tools()[0], chart)
	statesBeside(tools()[0], chart)[1].enter(a)
	back := withoutWebhook(t)
	if err := kube.Delete(t.Context(), a.service()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the controller takes its annotation back", func() error {
		if value, asked := a.scaledObject().GetAnnotations()[injector.TriggerAnnotation]; asked {
			return errors.New(value)
		}
		return nil
	})
	back()
	eventually(t, "the trigger is gone", func() error { return a.untriggered(chart) })
}
