// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

// Command netpol enforces NetworkPolicies on the cluster's node. The policies are evaluated by sigs.k8s.io/kube-network-policies, for
// the first packet of each connection, which the kernel passes to it through a queue.
//
// That project puts packets into the queue by a rule of nftables, which some kernels do not have (CONFIG_NFT_QUEUE). All have the
// target NFQUEUE of iptables, so the rules here are the same ones for iptables. Where the project's own rules work too, a packet is
// evaluated twice, with the same result.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

const (
	queue = 100
	chain = "NETWORK-POLICIES"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig of an account that may watch pods, namespaces and NetworkPolicies")
	node := flag.String("node", "", "name of the node")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, *kubeconfig, *node)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "netpol:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, node string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return enforce(ctx, client, node)
}

// enforce enforces the policies until ctx ends. Connections are let through before it begins and after it ends.
func enforce(ctx context.Context, client kubernetes.Interface, node string) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	// Version 0.8.0 panics with NRIdisabled. Without a socket of NRI it goes by the API server alone.
	controller, err := networkpolicy.NewController(client, factory.Networking().V1().NetworkPolicies(), factory.Core().V1().Namespaces(),
		factory.Core().V1().Pods(), nil, nil, nil, nil,
		networkpolicy.Config{QueueID: queue, NodeName: node, FailOpen: true})
	if err != nil {
		return fmt.Errorf("making the controller: %w", err)
	}
	factory.Start(ctx.Done())
	if err := addRules(ctx); err != nil {
		return err
	}
	defer removeRules(ctx)
	return controller.Run(ctx)
}

// addRules passes the first packet of each TCP connection to the queue, before its source address may be changed. Connections of the
// node itself are always allowed: the kubelet has to reach its pods. If nobody reads the queue, packets pass.
func addRules(ctx context.Context) error {
	removeRules(ctx)
	for _, rule := range [][]string{
		{"-N", chain},
		{"-A", chain, "-m", "owner", "--uid-owner", "0", "-j", "RETURN"},
		{"-A", chain, "-p", "tcp", "-m", "conntrack", "--ctstate", "NEW", "-j", "NFQUEUE", "--queue-num", strconv.Itoa(queue), "--queue-bypass"},
		{"-A", "POSTROUTING", "-j", chain},
	} {
		if err := iptables(ctx, rule...); err != nil {
			return err
		}
	}
	return nil
}

// removeRules removes what is there of the rules, also when ctx has ended.
func removeRules(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = iptables(ctx, "-D", "POSTROUTING", "-j", chain)
	_ = iptables(ctx, "-F", chain)
	_ = iptables(ctx, "-X", chain)
}

func iptables(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "iptables", append([]string{"-w", "-t", "mangle"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("iptables %v: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}
