// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// sentinel is the selector key that scale-to-zero adds to a Service.
const sentinel = "scale-to-zero/intercepted"

// A snapshot is the part of the app's namespace that the story looks at.
type snapshot struct {
	names     []string // kind and name of all objects
	replicas  int      // in the web server's Deployment
	pods      int      // of the web server, terminating or not
	service   spec
	ingress   spec
	endpoints []endpoint // the ready ones behind the Service
}

// spec is an object's specification.
type spec map[string]any

// withoutSelector returns a copy that lacks the selector.
func (s spec) withoutSelector() spec {
	c := maps.Clone(s)
	delete(c, "selector")
	return c
}

func (s spec) equal(other spec) bool { return reflect.DeepEqual(s, other) }

func (s spec) String() string {
	text, err := json.Marshal(s)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// selector returns the Service's selector, each key as key=value, in order.
func (s snapshot) selector() []string {
	var pairs []string
	selector, _ := s.service["selector"].(map[string]any)
	for key, value := range selector {
		pairs = append(pairs, fmt.Sprintf("%s=%v", key, value))
	}
	slices.Sort(pairs)
	return pairs
}

// An endpoint is an address and the pod that has it.
type endpoint struct {
	address, namespace, pod string
}

func (e endpoint) String() string { return e.namespace + "/" + e.pod }

// intercepted says whether the Service has ready endpoints, and all of them are interceptors.
func (s snapshot) intercepted() bool {
	return len(s.endpoints) > 0 && !slices.ContainsFunc(s.endpoints, func(e endpoint) bool {
		return e.namespace != ourNamespace || !strings.Contains(e.pod, "interceptor")
	})
}

// whoAnswers describes the Service's endpoints, each with its pod.
func (s snapshot) whoAnswers() []string {
	var lines []string
	for _, e := range s.endpoints {
		lines = append(lines, fmt.Sprintf("%-17s %s", e.address, e.pod))
	}
	return lines
}

// has says whether there is an object of a kind.
func (s snapshot) has(kind string) bool {
	return slices.ContainsFunc(s.names, func(name string) bool { return strings.HasPrefix(name, kind+" ") })
}

// object has the fields of all kinds that the demo reads.
type object struct {
	Kind     string
	Metadata struct {
		Name, Namespace string
		Labels          map[string]string
	}
	Spec   json.RawMessage
	Status struct {
		PodIP string
	}
	// of an EndpointSlice
	Endpoints []struct {
		Addresses  []string
		Conditions struct{ Ready *bool }
	}
	Ports []struct{ Port int }
	// of an Event
	Reason, Message string
	LastTimestamp   time.Time
}

func parseList(text string) ([]object, error) {
	var list struct{ Items []object }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("reading kubectl's answer: %w", err)
	}
	return list.Items, nil
}

// parseSnapshot reads `kubectl get -o json` of the app's objects and of all pods.
func parseSnapshot(objects, pods string) (snapshot, error) {
	var s snapshot
	all, err := parseList(objects)
	if err != nil {
		return s, err
	}
	allPods, err := parseList(pods)
	if err != nil {
		return s, err
	}
	byIP := map[string]endpoint{}
	for _, p := range allPods {
		if p.Status.PodIP != "" {
			byIP[p.Status.PodIP] = endpoint{namespace: p.Metadata.Namespace, pod: p.Metadata.Name}
		}
		if p.Metadata.Namespace == appNamespace && p.Metadata.Labels["component"] == "webserver" {
			s.pods++
		}
	}
	for _, o := range all {
		s.names = append(s.names, o.Kind+" "+o.Metadata.Name)
		switch {
		case o.Kind == "Deployment" && o.Metadata.Name == webserver:
			var d struct{ Replicas int }
			err = json.Unmarshal(o.Spec, &d)
			s.replicas = d.Replicas
		case o.Kind == "Service" && o.Metadata.Name == webserver:
			err = json.Unmarshal(o.Spec, &s.service)
		case o.Kind == "Ingress":
			err = json.Unmarshal(o.Spec, &s.ingress)
		case o.Kind == "EndpointSlice" && o.Metadata.Labels["kubernetes.io/service-name"] == webserver:
			s.endpoints = append(s.endpoints, o.ready(byIP)...)
		}
		if err != nil {
			return s, fmt.Errorf("reading %s %s: %w", o.Kind, o.Metadata.Name, err)
		}
	}
	slices.SortFunc(s.endpoints, func(a, b endpoint) int { return strings.Compare(a.String(), b.String()) })
	return s, nil
}

func (o object) ready(pods map[string]endpoint) []endpoint {
	var ready []endpoint
	for _, e := range o.Endpoints {
		if e.Conditions.Ready != nil && !*e.Conditions.Ready {
			continue
		}
		for _, ip := range e.Addresses {
			found, ok := pods[ip]
			if !ok {
				found = endpoint{namespace: "?", pod: "?"}
			}
			found.address = ip
			if len(o.Ports) > 0 {
				found.address = fmt.Sprintf("%s:%d", ip, o.Ports[0].Port)
			}
			ready = append(ready, found)
		}
	}
	return ready
}

// An event is one of scale-to-zero's about the Service.
type event struct {
	at              time.Time
	reason, message string
}

// parseEvents reads `kubectl events -o json`, and leaves out the events of others.
func parseEvents(text string) ([]event, error) {
	all, err := parseList(text)
	if err != nil {
		return nil, err
	}
	ours := []string{"Injected", "InjectionSkipped", "Restoring", "Restored", "WakeRequested", "Awake", "Asleep"}
	var events []event
	for _, o := range all {
		if slices.Contains(ours, o.Reason) {
			events = append(events, event{o.LastTimestamp, o.Reason, o.Message})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	return events, nil
}

// reasons returns the reasons of events, in order.
func reasons(events []event) []string {
	names := []string{}
	for _, e := range events {
		names = append(names, e.reason)
	}
	return names
}

// added returns the items of after that before lacks, and those of before that after lacks.
func added(before, after []string) (more, fewer []string) {
	for _, a := range after {
		if !slices.Contains(before, a) {
			more = append(more, a)
		}
	}
	for _, b := range before {
		if !slices.Contains(after, b) {
			fewer = append(fewer, b)
		}
	}
	return more, fewer
}
