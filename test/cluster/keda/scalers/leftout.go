// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// What the scalers that are kept use of the files that are not.

package scalers

import v2 "k8s.io/api/autoscaling/v2"

const externalMetricType = v2.ExternalMetricSourceType
