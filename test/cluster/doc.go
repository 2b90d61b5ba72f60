// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command cluster boots a real Kubernetes with KEDA on one Linux machine, without a registry, a container engine or a virtual
// machine, and removes it without a trace. The end-to-end tests and the demo run on it.
//
// # How it boots
//
// Every cluster is one isolated network namespace. It has loopback, one veth pair with both ends inside (one of them has the
// node's address) and, once pods run, the CNI bridge. No interface and no route leads to the machine's own network, so nothing
// that a test does reaches the outside, and address ranges of clusters never collide. To talk to the cluster, a program enters
// the namespace: kubectl, helm, exec and forward do.
//
// With `up --nodes 3`, this namespace is the first node's, in which the control plane runs too. Each further node has one of its own,
// with folders, cgroups and images of its own. A bridge in yet another namespace connects them, and each routes the others' pods
// (nodes.go). Each node is a zone. `node stop` is a power failure.
//
//	build     Kubernetes and etcd (one binary), CoreDNS, metrics-server, KEDA and Helm from the Go module proxy; containerd,
//	          runc and the CNI plugins from Debian. Kept by version in the user's cache and shared by all clusters. What
//	          the five share is compiled once: Kubernetes' libraries, in Kubernetes' versions (kube/). CoreDNS has only
//	          the plugins that our Corefile names, and KEDA only a few of its scalers (kedabuild.go). build.go
//	network   the namespaces, the nodes' addresses, routes and sysctls                           network.go
//	identity  certificate authorities, certificates, kubeconfigs                                 pki.go
//	plane     etcd → kube-apiserver → controller-manager and scheduler                           controlplane.go
//	nodes     containerd (+ images) → kubelet → kube-proxy; each node is Ready                   node.go
//	dns       CoreDNS as a process on the node's address, behind the Service kube-dns            dns.go
//	metrics   metrics-server as a pod, for `kubectl top` and CPU targets of autoscalers          metricsserver.go
//	keda      operator, metrics adapter and admission webhook as pods, with their own RBAC       keda.go
//	traefik   only on request: Traefik as a pod, Gateway API's definitions                       traefik.go
//
// `cert-manager`, in certmanager.go, adds cert-manager to a running cluster. `network-policies`, in netpol.go, makes the nodes enforce
// NetworkPolicies, which the CNI plugins here do not. The API server's audit log has the requests of one namespace's accounts.
//
// # What it leaves where
//
// All of a cluster's state is in one folder, <cache>/scale-to-zero/clusters/NAME, and every process has its files below that
// folder. What cannot be there is named after the cluster: the network namespaces and the roots of the pods' cgroups. The first
// cluster saves what the kubelet changes for the whole machine (a few sysctls), and the last one restores it (host.go). So
// `down` needs no record of how far `up` got: it stops everything in the namespaces, in the cgroups or named in a pid file,
// unmounts everything below the folder, and deletes it (cleanup.go). A pid file contains more than a number; see process.go.
//
// # Imports
//
// This is a module of its own, so that its dependencies are not the product's. It must not import the main module: it knows
// Kubernetes, KEDA, Traefik and cert-manager, but not what runs on them. kube/, certmanager/ and netpol/ are further modules, for the
// reasons given there. So is each folder of traefik/, which replaces modules that Traefik's build cannot get
// (traefikbuild.go), and keda/, which replaces what its build leaves out.
package main
