// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Two clusters must differ in everything that they could collide in.
func TestConfigurationKeepsClustersApart(t *testing.T) {
	a, b := testCluster(t), testCluster(t)
	b.cache, b.name = a.cache, "other"
	if err := b.prepare(1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*cluster{a, b} {
		if err := (node{c, 1}).writeConfiguration(); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(a.path("conf"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, _ := filepath.Rel(a.path(), path)
		one, _ := os.ReadFile(path)
		two, _ := os.ReadFile(b.path(relative))
		if moved := strings.NewReplacer(a.path(), b.path(), a.globalName(), b.globalName()).Replace(string(one)); moved != string(two) {
			t.Errorf("%s differs in more than the cluster's names", relative)
		}
		if strings.Contains(string(two), a.path()) || strings.Contains(string(two), a.globalName()) {
			t.Errorf("%s of one cluster speaks of the other", relative)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, differ := range map[string]bool{
		"namespace": a.namespace() != b.namespace(), "claim": a.claimFile() != b.claimFile(), "bridge": a.bridge() != b.bridge(),
		"socket": node{a, 1}.containerdSocket() != node{b, 1}.containerdSocket(),
		"cgroup": node{a, 1}.kubeletConfiguration()["cgroupRoot"] != node{b, 1}.kubeletConfiguration()["cgroupRoot"],
	} {
		if !differ {
			t.Errorf("both have the same %s", name)
		}
	}
}

func TestConfigurationIsJSON(t *testing.T) {
	c := testCluster(t)
	if err := (node{c, 1}).writeConfiguration(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"kubelet.yaml", "kube-proxy.yaml", "cni/10-scale-to-zero.conflist"} {
		content, err := os.ReadFile(c.path("conf", file))
		if err != nil || !json.Valid(content) {
			t.Errorf("%s: %v: %s", file, err, content)
		}
	}
	toml, err := node{c, 1}.containerdConfiguration()
	if err != nil || strings.Contains(string(toml), "no value") ||
		!strings.Contains(string(toml), `state = "`+c.path("run", "containerd")+`"`) {
		t.Errorf("containerd: %v\n%s", err, toml)
	}
}

func TestPatchKEDA(t *testing.T) {
	const manifests = `
        - --leader-elect
        image: ghcr.io/kedacore/keda-admission-webhooks:main
        imagePullPolicy: Always
        livenessProbe:
          httpGet:
            path: /healthz
            port: 8081
          initialDelaySeconds: 25
        readinessProbe:
          httpGet:
            path: /readyz
            port: 6443
            scheme: HTTPS
          initialDelaySeconds: 20
        resources: {}
`
	const want = `
        - --leader-elect=false
        image: ghcr.io/kedacore/keda-admission-webhooks:` + kedaVersion + `
        imagePullPolicy: IfNotPresent
        livenessProbe:
          httpGet:
            path: /healthz
            port: 8081
          initialDelaySeconds: 25
        readinessProbe:
          httpGet:
            path: /readyz
            port: 6443
            scheme: HTTPS
          initialDelaySeconds: 1
          periodSeconds: 1
        resources: {}
`
	if got := string(patchKEDA([]byte(manifests))); got != want {
		t.Errorf("got %s", got)
	}
}

func TestProgramsAreKeptByVersion(t *testing.T) {
	c := testCluster(t)
	for name, want := range map[string]string{
		"hyperkube": "kubernetes-" + kubernetesVersion + "-0123/hyperkube", "coredns": "coredns-" + corednsVersion + "-0123/coredns",
		"metrics-server": "metrics-server-" + metricsServerVersion + "-0123/metrics-server",
		"keda":           "keda-" + kedaVersion + "-" + c.kedaSum() + "/keda", "helm": "helm-" + helmVersion + "-0123/helm",
		"helm3": "helm-" + helm3Version + "/helm3", "pause": "pause-4567/pause",
		"traefik":      "traefik-" + traefikVersion + "-89ab/traefik",
		"cert-manager": "cert-manager-" + certManagerVersion + "-cdef/cert-manager",
		"netpol":       "netpol-" + netpolVersion + "-0246/netpol",
	} {
		if got, _ := filepath.Rel(c.cached("bin"), c.binary(name)); got != want {
			t.Errorf("%s is in %s, want %s", name, got, want)
		}
	}
}

// The versions in versions.go and those that kube/go.mod builds are the same.
func TestKubeVersions(t *testing.T) {
	file, err := filepath.Abs("kube/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	got, err := requirements(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	for module, want := range map[string]string{
		"k8s.io/kubernetes": kubernetesVersion, "github.com/coredns/coredns": corednsVersion, "helm.sh/helm/v4": helmVersion,
		metricsServerModule: metricsServerVersion, kedaModule: kedaVersion,
	} {
		if got[module] != want {
			t.Errorf("kube/go.mod asks for %s %s, want %s", module, got[module], want)
		}
	}
	if !strings.HasPrefix(kubernetesVersion, "v1."+kubernetesMinor+".") {
		t.Errorf("%s is not of 1.%s", kubernetesVersion, kubernetesMinor)
	}
}

// CoreDNS has the plugins that the Corefile names, and no others.
func TestCoreDNSPlugins(t *testing.T) {
	source, err := os.ReadFile("kube/coredns/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var built, named []string
	for _, match := range regexp.MustCompile(`coredns/plugin/(\w+)"`).FindAllSubmatch(source, -1) {
		built = append(built, string(match[1]))
	}
	for _, match := range regexp.MustCompile(`(?m)^  (\w+)`).FindAllSubmatch(testCluster(t).corefile(), -1) {
		named = append(named, string(match[1]))
	}
	slices.Sort(named)
	if !slices.Equal(built, named) {
		t.Errorf("built %v, named %v", built, named)
	}
}

func TestSumFiles(t *testing.T) {
	dir := t.TempDir()
	sums := map[string]bool{}
	for _, content := range []string{"a", "b", "a"} {
		writeFiles(t, dir, map[string]string{"file": "same", "below/file": content})
		sum, err := sumFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		sums[sum] = true
	}
	if len(sums) != 2 {
		t.Errorf("sums %v", sums)
	}
}

func TestAssets(t *testing.T) {
	c := testCluster(t)
	for range 2 { // the second time, everything is there and outdated
		dir, err := c.assets()
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"etcd": c.hyperkube(), "kube-apiserver": c.hyperkube(), "kubectl": c.hyperkube(), "helm": c.binary("helm"), "helm3": c.binary("helm3"),
		} {
			target, err := os.Readlink(filepath.Join(dir, name))
			if err != nil || filepath.Join(dir, target) != want {
				t.Errorf("%s is %s, %v", name, target, err)
			}
			if err := link("another version", filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
