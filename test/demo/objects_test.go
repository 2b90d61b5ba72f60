// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
)

const podsAsleep = `{"items": [
  {"kind": "Pod", "metadata": {"namespace": "scale-to-zero", "name": "scale-to-zero-interceptor-a"}, "status": {"podIP": "10.0.0.2"}},
  {"kind": "Pod", "metadata": {"namespace": "scale-to-zero", "name": "scale-to-zero-interceptor-b"}, "status": {"podIP": "10.0.0.3"}},
  {"kind": "Pod", "metadata": {"namespace": "airflow-demo", "name": "airflow-scheduler-x", "labels": {"component": "scheduler"}},
   "status": {"podIP": "10.0.0.4"}}
]}`

const podsAwake = `{"items": [
  {"kind": "Pod", "metadata": {"namespace": "airflow-demo", "name": "airflow-webserver-x", "labels": {"component": "webserver"}},
   "status": {"podIP": "10.0.0.9"}}
]}`

// objects returns kubectl's output, with the given selector of the Service and the given endpoints.
func objects(selector, endpoints string) string {
	return `{"items": [
  {"kind": "Deployment", "metadata": {"name": "airflow-webserver"}, "spec": {"replicas": 1}},
  {"kind": "Deployment", "metadata": {"name": "airflow-scheduler"}, "spec": {"replicas": 7}},
  {"kind": "Service", "metadata": {"name": "airflow-webserver"}, "spec": {"selector": ` + selector + `, "ports": [{"port": 8080}]}},
  {"kind": "Service", "metadata": {"name": "airflow-webserver-direct"}, "spec": {"clusterIP": "None"}},
  {"kind": "Ingress", "metadata": {"name": "airflow-ingress"}, "spec": {"rules": []}},
  {"kind": "EndpointSlice", "metadata": {"name": "a", "labels": {"kubernetes.io/service-name": "airflow-webserver"}},
   "ports": [{"port": 8080}], "endpoints": [` + endpoints + `]},
  {"kind": "EndpointSlice", "metadata": {"name": "b", "labels": {"kubernetes.io/service-name": "airflow-webserver-direct"}},
   "endpoints": [{"addresses": ["10.0.0.9"]}]}
]}`
}

func parse(t *testing.T, objects, pods string) snapshot {
	t.Helper()
	s, err := parseSnapshot(objects, pods)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSnapshot(t *testing.T) {
	before := parse(t, objects(`{"tier": "airflow", "component": "webserver"}`, `{"addresses": ["10.0.0.9"]}`), podsAwake)
	if before.replicas != 1 || before.pods != 1 || before.intercepted() || before.has("ScaledObject") || !before.has("Ingress") {
		t.Errorf("%+v", before)
	}
	if got := before.selector(); !slices.Equal(got, []string{"component=webserver", "tier=airflow"}) {
		t.Errorf("selector %q", got)
	}
	if got := before.whoAnswers(); len(got) != 1 || got[0] != "10.0.0.9:8080     airflow-webserver-x" {
		t.Errorf("endpoints %q", got)
	}
	after := parse(t, objects(`{"tier": "airflow", "component": "webserver", "scale-to-zero/intercepted": "true"}`,
		`{"addresses": ["10.0.0.3"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
		 {"addresses": ["10.0.0.9"], "conditions": {"ready": false}}`), podsAsleep)
	if !after.intercepted() || after.pods != 0 || len(after.endpoints) != 2 || after.endpoints[0].pod != "scale-to-zero-interceptor-a" {
		t.Errorf("%+v", after)
	}
	more, fewer := added(before.selector(), after.selector())
	if !slices.Equal(more, []string{"scale-to-zero/intercepted=true"}) || len(fewer) != 0 {
		t.Errorf("more %q, fewer %q", more, fewer)
	}
	if before.service.equal(after.service) || !before.service.withoutSelector().equal(after.service.withoutSelector()) {
		t.Errorf("before %s, after %s", before.service, after.service)
	}
	if len(before.service["selector"].(map[string]any)) != 2 {
		t.Error("without has changed its receiver")
	}
}

func TestIntercepted(t *testing.T) {
	for name, endpoints := range map[string]string{
		"nobody":               ``,
		"a pod and ours":       `{"addresses": ["10.0.0.4", "10.0.0.2"]}`,
		"somebody unknown":     `{"addresses": ["10.9.9.9"]}`,
		"ours, but none ready": `{"addresses": ["10.0.0.2"], "conditions": {"ready": false}}`,
	} {
		if parse(t, objects(`{}`, endpoints), podsAsleep).intercepted() {
			t.Errorf("%s: intercepted", name)
		}
	}
}

func TestBadAnswers(t *testing.T) {
	for _, bad := range []string{
		"", "no", `{"items": [{"kind": "Deployment", "metadata": {"name": "airflow-webserver"}, "spec": {"replicas": "x"}}]}`,
	} {
		if _, err := parseSnapshot(bad, podsAwake); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := parseSnapshot(objects(`{}`, ``), "no"); err == nil {
		t.Error("pods that are no JSON are taken")
	}
	if _, err := parseEvents("no"); err == nil {
		t.Error("events that are no JSON are taken")
	}
}

func TestEvents(t *testing.T) {
	events, err := parseEvents(`{"items": [
	  {"reason": "Awake", "message": "3", "lastTimestamp": "2026-01-01T00:00:09Z"},
	  {"reason": "ScalingReplicaSet", "message": "not ours", "lastTimestamp": null},
	  {"reason": "Injected", "message": "1", "lastTimestamp": "2026-01-01T00:00:01Z"},
	  {"reason": "WakeRequested", "message": "2", "lastTimestamp": "2026-01-01T00:00:05Z"}]}`)
	if err != nil || strings.Join(reasons(events), " ") != "Injected WakeRequested Awake" || events[0].message != "1" {
		t.Errorf("%+v, %v", events, err)
	}
}

func TestContentTag(t *testing.T) {
	if _, err := contentTag(t.TempDir() + "/none"); err == nil {
		t.Error("a file that is not there has a tag")
	}
	if tag, err := contentTag("objects_test.go"); err != nil || !strings.HasPrefix(tag, "demo-") || len(tag) != len("demo-")+8 {
		t.Errorf("%q, %v", tag, err)
	}
}
