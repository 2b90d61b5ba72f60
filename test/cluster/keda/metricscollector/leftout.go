// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Metrics by OpenTelemetry, which KEDA has besides those for Prometheus and by default does not send. This build of it
// never does.

package metricscollector

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
)

const defaultNamespace = "default" // of Prometheus' metrics too

type OtelMetrics struct{ MetricsCollector }

var meterProvider = noop.NewMeterProvider()

func NewOtelMetrics(bool) *OtelMetrics { return nil }

func (*OtelMetrics) grpcClientAttributes(scalerRequestLabels) []attribute.KeyValue { return nil }

func (*OtelMetrics) grpcClientAttributesFromContext(context.Context) []attribute.KeyValue { return nil }

func (*OtelMetrics) RecordGRPCClientCall(context.Context, string, string, scalerRequestLabels) {}

func (*OtelMetrics) RecordGRPCClientStreamMessage(context.Context, string, string, scalerRequestLabels) {
}
