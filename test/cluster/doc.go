// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command cluster boots a real Kubernetes with KEDA on one Linux machine, without a registry, a container engine or a
// virtual machine, and takes it down again without a trace. It is what the end-to-end tests and the demo run on.
//
// # How it boots
//
// Every cluster is one network namespace with no way out: there is loopback, one veth pair whose two ends are both
// inside (one of them carries the node's address) and, once pods run, the CNI bridge. No interface and no route leads
// to the machine's own network, so nothing a test does reaches the outside, and address ranges never collide between
// clusters. Whoever wants to talk to the cluster enters the namespace: kubectl, helm, exec and forward do.
//
//	build     Kubernetes and etcd (one binary), CoreDNS, KEDA and Helm from the Go module proxy; containerd, runc and the
//	          CNI plugins from Debian. Kept under their versions in the user's cache and shared by all clusters. What
//	          the four have in common is compiled once: Kubernetes' libraries, in Kubernetes' versions (kube/). CoreDNS
//	          has only the plugins that our Corefile names, and KEDA only a few of its scalers (kedabuild.go). build.go
//	network   the namespace, the node's address, its sysctls                                     network.go
//	identity  certificate authorities, certificates, kubeconfigs                                 pki.go
//	plane     etcd → kube-apiserver → controller-manager and scheduler                           controlplane.go
//	node      containerd (+ images) → kubelet → kube-proxy; the node is Ready                    node.go
//	dns       CoreDNS as a process on the node's address, behind the Service kube-dns            dns.go
//	keda      operator, metrics adapter and admission webhook as pods, with their own RBAC       keda.go
//	traefik   only when asked for: Traefik as a pod, Gateway API's definitions                   traefik.go
//
// cert-manager comes on demand, into a cluster that is up: `cert-manager`, in certmanager.go.
//
// # What it leaves where
//
// All of a cluster's state is in one folder, <cache>/scale-to-zero/clusters/NAME, and every process is started with its
// files below that folder. What cannot be moved there is named after the cluster: the network namespace, the root of
// the pods' cgroups. What the kubelet changes for the whole machine (a few sysctls) is saved by the first cluster and
// put back by the last (host.go). `down` therefore needs no record of how far `up` got: it stops whatever is in the
// namespace, in the cgroups or named in a pid file, unmounts whatever is mounted below the folder, and deletes
// (cleanup.go). A pid file holds more than a number, see process.go.
//
// # Imports
//
// This is a module of its own, so that nothing needed here shows up in the dependencies of what we ship. It must not
// import the main module: it knows Kubernetes, KEDA, Traefik and cert-manager, not what runs on them. kube/ and certmanager/
// are yet other modules, for the reasons given there; so is each folder of traefik/, which stand in for modules that
// Traefik's build would not get (traefikbuild.go), and keda/, which stands in for what its build leaves out.
package main
