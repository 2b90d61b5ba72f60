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

func (c *cluster) containerdConfiguration() ([]byte, error) {
	var out strings.Builder
	err := template.Must(template.New("containerd").Parse(containerdConfig)).Execute(&out, map[string]string{
		"Root": c.path("data", "containerd"), "State": c.path("run", "containerd"), "Opt": c.path("data", "opt"),
		"Runc": c.path("run", "runc"), "Socket": c.containerdSocket(), "CNI": c.path("conf", "cni"), "Pause": pauseImage, "Plugins": cniPlugins,
	})
	return []byte(out.String()), err
}

func (c *cluster) kubeletConfiguration() map[string]any {
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": nodeIP, "healthzBindAddress": "127.0.0.1",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true},
			"x509": map[string]any{"clientCAFile": c.pki("ca.crt")},
		},
		"authorization": map[string]any{"mode": "Webhook"},
		"tlsCertFile":   c.pki("kubelet-server.crt"), "tlsPrivateKeyFile": c.pki("kubelet-server.key"),
		"containerRuntimeEndpoint": "unix://" + c.containerdSocket(),
		"cgroupDriver":             "cgroupfs", "cgroupRoot": "/" + c.globalName(), "cgroupsPerQOS": true,
		"failCgroupV1": false, // many machines still have v1, with which the kubelet does not start by default
		"failSwapOn":   false, "oomScoreAdj": 0, "enforceNodeAllocatable": []string{"pods"},
		"podLogsDir": c.path("data", "podlogs"), "volumePluginDir": c.path("data", "volumeplugins"),
		"resolvConf": "", "clusterDNS": []string{dnsIP}, "clusterDomain": "cluster.local",
		"makeIPTablesUtilChains": false, "serializeImagePulls": false,
		"imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99, // a deleted image cannot be pulled again
		"evictionHard":              map[string]string{"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"nodeStatusUpdateFrequency": "10s", "nodeLeaseDurationSeconds": 40, "kubeAPIQPS": 200, "kubeAPIBurst": 400,
	}
}

func (c *cluster) proxyConfiguration() map[string]any {
	sync := map[string]any{"minSyncPeriod": "10ms", "syncPeriod": "30s"} // 0s would mean every second, not at once
	return map[string]any{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
		"clientConnection": map[string]any{"kubeconfig": c.pki("kube-proxy.kubeconfig")},
		"clusterCIDR":      podCIDR, "hostnameOverride": nodeName,
		"healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
		"nftables": sync, "iptables": sync,
		// the limits of connection tracking are the whole machine's: do not change them
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
	}
}

// writeNodeConfiguration writes JSON, which is valid YAML and needs no care with quotes.
func (c *cluster) writeNodeConfiguration() error {
	toml, err := c.containerdConfiguration()
	if err != nil {
		return err
	}
	if _, err := writeFile(c.path("conf", "containerd.toml"), toml, 0o644); err != nil {
		return err
	}
	for file, config := range map[string]any{
		"cni/10-scale-to-zero.conflist": c.cniConfiguration(),
		"kubelet.yaml":                  c.kubeletConfiguration(),
		"kube-proxy.yaml":               c.proxyConfiguration(),
	} {
		content, err := json.MarshalIndent(config, "", "  ")
		if err != nil {
			return err
		}
		if _, err := writeFile(c.path("conf", file), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// upContainerd starts containerd inside the namespace. Its CNI plugins make the bridge there.
func (c *cluster) upContainerd(ctx context.Context) error {
	if err := c.writeNodeConfiguration(); err != nil {
		return fmt.Errorf("writing the node's configuration: %w", err)
	}
	if err := c.start(ctx, daemon{
		name: "containerd", binary: containerdBinary, args: []string{"-c", c.path("conf", "containerd.toml")},
	}); err != nil {
		return err
	}
	return poll(ctx, time.Minute, "containerd to answer; see "+c.log("containerd"), func() (bool, error) {
		return c.containerdReady(ctx), c.require("containerd")
	})
}

func (c *cluster) upNode(ctx context.Context) error {
	if err := c.ensureCgroups(); err != nil {
		return err
	}
	kubelet := daemon{name: "kubelet", binary: c.hyperkube(), args: []string{
		"--kubeconfig=" + c.pki("kubelet.kubeconfig"), "--config=" + c.path("conf", "kubelet.yaml"),
		"--root-dir=" + c.path("data", "kubelet"), "--hostname-override=" + nodeName, "--node-ip=" + nodeIP, "--v=2",
	}}
	if err := c.start(ctx, kubelet); err != nil {
		return err
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	// the node's conditions in the API may be older than this kubelet
	if err := c.waitHealthy(ctx, "kubelet", "http://127.0.0.1:10248/healthz"); err != nil {
		return err
	}
	// kube-proxy looks up its node once, so the node must be there
	node := "/api/v1/nodes/" + nodeName
	err = poll(ctx, time.Minute, "the node to register; see "+c.log("kubelet"), func() (bool, error) {
		return api.get(ctx, node, nil) == nil, c.require("kubelet")
	})
	if err != nil {
		return err
	}
	if err := c.start(ctx, daemon{
		name: "kube-proxy", binary: c.hyperkube(), args: []string{"--config=" + c.path("conf", "kube-proxy.yaml"), "--v=2"},
	}); err != nil {
		return err
	}
	if err := c.waitHealthy(ctx, "kube-proxy", "http://127.0.0.1:10256/healthz"); err != nil {
		return err
	}
	return poll(ctx, time.Minute, "the node to be Ready; see "+c.log("kubelet"), func() (bool, error) {
		return api.has(ctx, node, "Ready"), c.require("kubelet", "containerd")
	})
}
