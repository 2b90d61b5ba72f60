// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package busy reads how an app is asked whether it is busy: the request, and the CEL expression that its answer has to meet. The
// injector checks both when they are written, and the interceptors evaluate the expression. It imports only package api of this project,
// and nothing of Kubernetes.
//
// Whoever may annotate a Service chooses the expression, and the app chooses the answer, but the interceptors are shared. So the
// language lacks what could make a small expression or a small answer large: see vet. What is left takes time in proportion to the
// length of the expression and of the answer, except in loops, which a limit of cost and a limit of time end.
package busy
