// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/kube"
)

// This is how a main function runs an interceptor.
func Example() {
	run := func(ctx context.Context, config *rest.Config, log logr.Logger, namespace, podName, podIP string) error {
		cluster, err := kube.New(config, kube.Options{
			Namespace: namespace, PodName: podName, PodIP: podIP, Service: "scale-to-zero-interceptor", Log: log,
		})
		if err != nil {
			return err
		}
		return interceptor.Run(ctx, interceptor.Options{
			Cluster: cluster, PodName: podName, GRPCAddress: ":9090", HealthAddress: ":8081",
			DrainTimeout: 30 * time.Second, Log: log,
		})
	}
	_ = run
}
