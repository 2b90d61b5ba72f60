// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
	"time"
)

// containerdConfig keeps containerd's files below the cluster's folder, as far as it has a setting for them.
//
//   - netns_mounts_under_state_dir: or the pods' namespaces show up in /run/netns.
//   - restrict_oom_score_adj: without CAP_SYS_RESOURCE, as in many containers and sandboxes, nobody may lower the
//     score, and every pod fails with "can't get final child's PID from pipe: EOF".
//   - nri: newer versions of containerd open one socket for it on the whole machine. Older ones ignore the section.
const containerdConfig = `version = 2
root = "{{.Root}}"
state = "{{.State}}"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", ` +
	`"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", ` +
	`"io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{{.Socket}}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{{.Opt}}"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{{.Pause}}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{{.Runc}}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{{.Plugins}}"
    conf_dir = "{{.CNI}}"
`

func (n node) containerdConfiguration() ([]byte, error) {
	var out strings.Builder
	err := template.Must(template.New("containerd").Parse(containerdConfig)).Execute(&out, map[string]string{
		"Root": n.path("data", "containerd"), "State": n.path("run", "containerd"), "Opt": n.path("data", "opt"),
		"Runc": n.path("run", "runc"), "Socket": n.containerdSocket(), "CNI": n.path("conf", "cni"), "Pause": pauseImage, "Plugins": cniPlugins,
	})
	return []byte(out.String()), err
}

func (n node) kubeletConfiguration() map[string]any {
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": n.ip(), "healthzBindAddress": "127.0.0.1",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true},
			"x509": map[string]any{"clientCAFile": n.cluster.pki("ca.crt")},
		},
		"authorization": map[string]any{"mode": "Webhook"},
		"tlsCertFile":   n.pki("kubelet-server", ".crt"), "tlsPrivateKeyFile": n.pki("kubelet-server", ".key"),
		"containerRuntimeEndpoint": "unix://" + n.containerdSocket(),
		"cgroupDriver":             "cgroupfs", "cgroupRoot": "/" + n.globalName(), "cgroupsPerQOS": true,
		"failCgroupV1": false, // many machines still have v1, with which the kubelet does not start by default
		"failSwapOn":   false, "oomScoreAdj": 0, "enforceNodeAllocatable": []string{"pods"},
		"podLogsDir": n.path("data", "podlogs"), "volumePluginDir": n.path("data", "volumeplugins"),
		"resolvConf": "", "clusterDNS": []string{dnsIP}, "clusterDomain": "cluster.local",
		"makeIPTablesUtilChains": false, "serializeImagePulls": false,
		"imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99, // a deleted image cannot be pulled again
		"evictionHard":              map[string]string{"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"nodeStatusUpdateFrequency": "10s", "nodeLeaseDurationSeconds": 40, "kubeAPIQPS": 200, "kubeAPIBurst": 400,
	}
}

func (n node) proxyConfiguration() map[string]any {
	sync := map[string]any{"minSyncPeriod": "10ms", "syncPeriod": "30s"} // 0s would mean every second, not at once
	return map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
		"clientConnection": map[string]any{"kubeconfig": n.pki("kube-proxy", ".kubeconfig")},
		"clusterCIDR":      podCIDR, "hostnameOverride": n.name(),
		"healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
		"nftables": sync, "iptables": sync,
		// the limits of connection tracking are the whole machine's: do not change them
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
	}
}

// writeConfiguration writes JSON, which is valid YAML and needs no care with quotes.
func (n node) writeConfiguration() error {
	toml, err := n.containerdConfiguration()
	if err != nil {
		return err
	}
	if _, err := writeFile(n.path("conf", "containerd.toml"), toml, 0o644); err != nil {
		return err
	}
	for file, config := range map[string]any{
		"cni/10-scale-to-zero.conflist": n.cniConfiguration(),
		"kubelet.yaml":                  n.kubeletConfiguration(),
		"kube-proxy.yaml":               n.proxyConfiguration(),
	} {
		content, err := json.MarshalIndent(config, "", "  ")
		if err != nil {
			return err
		}
		if _, err := writeFile(n.path("conf", file), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// upContainerd starts containerd inside the namespace. Its CNI plugins make the bridge there.
func (n node) upContainerd(ctx context.Context) error {
	if err := n.writeConfiguration(); err != nil {
		return fmt.Errorf("writing the configuration of %s: %w", n.name(), err)
	}
	containerd := daemon{name: "containerd", binary: containerdBinary, args: []string{"-c", n.path("conf", "containerd.toml")}}
	if err := n.start(ctx, containerd); err != nil {
		return err
	}
	return poll(ctx, time.Minute, "containerd to answer; see "+n.log("containerd"), func() (bool, error) {
		return n.containerdReady(ctx), n.require("containerd")
	})
}

func (n node) kubelet() daemon {
	args := []string{
		"--kubeconfig=" + n.pki("kubelet", ".kubeconfig"), "--config=" + n.path("conf", "kubelet.yaml"),
		"--root-dir=" + n.path("data", "kubelet"), "--hostname-override=" + n.name(), "--node-ip=" + n.ip(), "--v=2",
	}
	if !n.alone() {
		args = append(args, "--node-labels=topology.kubernetes.io/zone="+n.zone())
	}
	return daemon{name: "kubelet", binary: n.cluster.hyperkube(), args: args}
}

// upKubelet returns when the node is Ready. containerd has to run.
func (n node) upKubelet(ctx context.Context) error {
	if err := n.ensureCgroups(); err != nil {
		return err
	}
	if err := n.start(ctx, n.kubelet()); err != nil {
		return err
	}
	api, err := n.cluster.api()
	if err != nil {
		return err
	}
	// the node's conditions in the API may be older than this kubelet
	if err := n.waitHealthy(ctx, "kubelet", "http://127.0.0.1:10248/healthz"); err != nil {
		return err
	}
	// kube-proxy looks up its node once, so the node must be there
	err = poll(ctx, time.Minute, n.name()+" to register; see "+n.log("kubelet"), func() (bool, error) {
		return api.get(ctx, n.object(), nil) == nil, n.require("kubelet")
	})
	if err != nil {
		return err
	}
	if err := n.start(ctx, daemon{
		name: "kube-proxy", binary: n.cluster.hyperkube(), args: []string{"--config=" + n.path("conf", "kube-proxy.yaml"), "--v=2"},
	}); err != nil {
		return err
	}
	if err := n.waitHealthy(ctx, "kube-proxy", "http://127.0.0.1:10256/healthz"); err != nil {
		return err
	}
	return poll(ctx, time.Minute, n.name()+" to be Ready; see "+n.log("kubelet"), func() (bool, error) {
		return api.has(ctx, n.object(), "Ready"), n.require("kubelet", "containerd")
	})
}
