// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

// The versions of what runs in the cluster. A changed version is built next to the old one; `down` and `up` switch to it.
const (
	kubernetesVersion    = "v1.37.2" // keep kube/go.mod in step
	kubernetesMinor      = "37"
	kedaVersion          = "v2.21.0" // keep test/gitops in step
	corednsVersion       = "v1.15.0"
	metricsServerVersion = "v0.9.0"
	// certManagerVersion is added on demand; keep certmanager/go.mod in step
	certManagerVersion = "v1.21.2"
	// netpolVersion is of sigs.k8s.io/kube-network-policies, which is added on demand; keep netpol/go.mod in step
	netpolVersion  = "v0.8.0"
	kwokVersion    = "v0.8.0" // added on demand
	helmVersion    = "v4.3.1"
	helm3Version   = "v3.22.0"
	traefikVersion = "v3.7.13" // decides the version of Gateway API
)

// The addresses inside the namespace. They come from 198.18.0.0/15, which is reserved for benchmarks, so that a client
// that does not enter the namespace reaches nothing by accident.
const (
	nodePrefix  = "198.19.128."
	nodeIP      = nodePrefix + "1" // of the first node, where the control plane is
	podPrefix   = "198.18."
	podCIDR     = podPrefix + "0.0/17" // of all nodes
	serviceCIDR = "198.19.0.0/20"
	serviceIP   = "198.19.0.1"
	dnsIP       = "198.19.0.10"
	apiServer   = "https://127.0.0.1:6443" // loopback: outside the namespace it is refused, and no packet leaves the machine
)

const pauseImage = "scale-to-zero.test/pause:1"
