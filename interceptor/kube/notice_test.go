// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/notice"
)

// Several interceptors with the same notice write one event on the Service and one on the workload.
func TestOneEventForOneNotice(t *testing.T) {
	client, _, first := watchAll(t)
	second := NewForClients(client, nil, Options{Namespace: "shop", PodName: "you", Log: logr.Discard()})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- second.Watch(ctx, newFakeSink()) }()
	defer func() { cancel(); <-done }()
	n := notice.Notice{
		Namespace: "shop", Service: "web", ServiceUID: "u1", Reason: notice.ClientsGaveUp, Warning: true, ID: "gave-up-s1", Message: "3 requests",
		Workload: api.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "u2"},
	}
	first.Notice(n)
	second.Notice(n)
	eventually(t, "four attempts", func() bool {
		creates := 0
		for _, a := range client.Actions() {
			if a.Matches("create", "events") {
				creates++
			}
		}
		return creates == 4
	})
	list, err := client.CoreV1().Events("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range list.Items {
		got[e.Name] = e.InvolvedObject.Kind + " " + string(e.InvolvedObject.UID) + " " + e.Type + " " + e.Reason + " " + e.Message
	}
	want := map[string]string{
		"web.service-gave-up-s1":  "Service u1 " + corev1.EventTypeWarning + " ClientsGaveUp 3 requests",
		"web.workload-gave-up-s1": "Deployment u2 " + corev1.EventTypeWarning + " ClientsGaveUp 3 requests",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}
