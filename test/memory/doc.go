// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Package memory attacks the memory of one interceptor. The interceptor runs as a process of its own (target) in a cgroup with the
// chart's limit. Each test uses it as an attacker would who has one app, while another app is asked all the time. The interceptor must
// not die, and must not lose a request of the other app.
//
// Where no cgroup can be made, the tests compare the peak of the process's memory with the limit.
package memory
