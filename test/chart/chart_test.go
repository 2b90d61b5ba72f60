// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

func TestLint(t *testing.T) {
	for _, h := range helms() {
		for name, tc := range map[string]struct {
			path string
			v    values
		}{
			"defaults": {ours, values{}},
			"all":      {ours, readValues(t, "testdata/all.yaml")},
			"demo":     {demo, values{}},
		} {
			t.Run(h.name+" "+name, func(t *testing.T) {
				for _, err := range h.lint(tc.path, tc.v) {
					t.Error(err)
				}
			})
		}
	}
}

// Both Helms render the charts alike, and Kubernetes knows every field.
func TestRender(t *testing.T) {
	for name, tc := range map[string]struct {
		path string
		v    values
		want int
	}{
		"defaults": {ours, values{}, 51},
		"all":      {ours, readValues(t, "testdata/all.yaml"), 26},
		"policies": {ours, values{
			"customWorkloads": []any{values{"apiGroup": "argoproj.io", "resource": "rollouts"}}, "startupCPU": values{"enabled": true},
		}, 55},
		"cert-manager":          {ours, withCertManager(), 58},
		"no hook":               {ours, values{"uninstall": values{"restore": false}}, 45},
		"in plain text":         {ours, plainText(), 49},
		"guarded metrics":       {ours, guardedMetrics(false), 54},
		"guarded PodMonitors":   {ours, guardedMetrics(true), 59},
		"with KEDA":             {ours, values{"keda": values{"namespace": "autoscaling"}}, 54},
		"KEDA and a plain port": {ours, values{"keda": values{"namespace": "x"}, "interceptor": values{"mutualTLS": false}}, 49},
		"demo": {demo, values{
			"webserver": values{"labels": values{"scale-to-zero": "true"}},
			"ingress": values{"web": values{"enabled": true, "ingressClassName": "x", "hosts": []any{
				values{"name": "a.example.com", "tls": values{"enabled": true, "secretName": "y"}}, values{"name": "b.example.com"},
			}}},
		}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			var first []runtime.Object
			for _, h := range helms() {
				r, err := h.render(tc.path, "scale-to-zero", "scale-to-zero", tc.v, certManagerAPI)
				if err != nil {
					t.Fatal(err)
				}
				got := objects(t, r)
				if len(got) != tc.want {
					t.Errorf("%s renders %d objects, want %d", h.name, len(got), tc.want)
				}
				if first == nil {
					first = got
				}
				if !reflect.DeepEqual(got, first) {
					t.Errorf("%s renders something else than the other", h.name)
				}
			}
		})
	}
}

// testdata/all.yaml must keep its promise to set all values.
func TestAllValuesAreCovered(t *testing.T) {
	var walk func(path string, defaults, all values)
	walk = func(path string, defaults, all values) {
		for k, v := range defaults {
			other, ok := all[k]
			if !ok {
				t.Errorf("%s%s is missing in testdata/all.yaml", path, k)
			}
			nested, isMap := v.(values)
			otherNested, otherIsMap := other.(values)
			switch {
			case isMap && otherIsMap && len(nested) > 0:
				walk(path+k+".", nested, otherNested)
			case reflect.DeepEqual(v, other) && path+k != "uninstall.restore" && path+k != "metrics.authentication": // it needs mutualTLS
				t.Errorf("%s%s has its default in testdata/all.yaml", path, k)
			}
		}
	}
	walk("", readValues(t, ours+"/values.yaml"), readValues(t, "testdata/all.yaml"))
}

func TestSchemaTellsWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		v    values
		want string
	}{
		"no replica":        {values{"controller": values{"replicas": 0}}, "controller"},
		"a number as label": {values{"interceptor": values{"podLabels": values{"a": true}}}, "podLabels"},
		"no unit":           {values{"interceptor": values{"drainTimeout": "60"}}, "drainTimeout"},
		"no connections":    {values{"interceptor": values{"maxConnectionsPerRoute": 0}}, "maxConnectionsPerRoute"},
		"a header as text":  {values{"interceptor": values{"maxHeaderBytes": "64Ki"}}, "maxHeaderBytes"},
		"no wakes":          {values{"interceptor": values{"maxWakes": 0}}, "maxWakes"},
		"no hops":           {values{"interceptor": values{"trustedHops": -2}}, "trustedHops"},
		"half a hop":        {values{"interceptor": values{"trustedHops": 0.5}}, "trustedHops"},
		"held as text":      {values{"interceptor": values{"heldHeader": "yes"}}, "heldHeader"},
		"an idle number":    {values{"interceptor": values{"idleTimeout": 300}}, "idleTimeout"},
		"one port":          {values{"controller": values{"portRange": "8080"}}, "portRange"},
		"fewer than none":   {values{"controller": values{"maxRoutesPerNamespace": -1}}, "maxRoutesPerNamespace"},
		"policies as text":  {values{"admissionPolicies": values{"enabled": "yes"}}, "admissionPolicies"},
		"a typo":            {values{"intercepter": values{}}, "intercepter"},
		"a log level":       {values{"log": values{"level": "trace"}}, "level"},
		"cpu as text":       {values{"startupCPU": values{"enabled": "2"}}, "startupCPU"},
		"a mode":            {values{"certs": values{"mode": "certmanager"}}, "certs"},
		"a nameless issuer": {values{"certs": values{"mode": "cert-manager", "issuerRef": values{"kind": "ClusterIssuer"}}}, "issuerRef"},
	} {
		for _, h := range helms() {
			if _, err := h.render(ours, "r", "ns", tc.v); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s, %s: the error %v does not name %s", h.name, name, err, tc.want)
			}
		}
	}
}

// The interceptors get the limits as they were written, large numbers too.
func TestLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		v    values
		want []string
	}{
		"defaults": {values{}, []string{
			"--max-connections-per-route=10000", "--max-header-bytes=65536", "--read-header-timeout=30s", "--idle-timeout=5m",
			"--write-timeout=1m", "--max-wakes=200", "--max-wakes-per-source=100", "--trusted-hops=-1", "--held-header=true",
			"--waiting-page-grace=1s",
		}},
		"all": {readValues(t, "testdata/all.yaml"), []string{
			"--max-connections-per-route=1000000", "--max-header-bytes=1048576", "--read-header-timeout=10s", "--idle-timeout=1h30m",
			"--write-timeout=90s", "--max-wakes=1000", "--max-wakes-per-source=7", "--trusted-hops=0", "--held-header=false",
			"--waiting-page-grace=1500ms",
		}},
		"values kept from a chart without them": {values{"interceptor": values{
			"maxConnectionsPerRoute": nil, "maxHeaderBytes": nil, "readHeaderTimeout": nil, "idleTimeout": nil, "writeTimeout": nil,
			"trustedHops": nil, "heldHeader": nil, "maxWakes": nil, "maxWakesPerSource": nil,
			"waitingPageGrace": nil,
		}}, nil},
	} {
		for _, h := range helms() {
			r, err := h.render(ours, "r", "ns", tc.v, certManagerAPI)
			if err != nil {
				t.Fatal(err)
			}
			for pod, template := range templates(objects(t, r)) {
				if len(tc.want) == 0 && slices.ContainsFunc(template.Spec.Containers[0].Args, func(arg string) bool {
					limit := strings.HasPrefix(arg, "--max-") && !strings.HasPrefix(arg, "--max-routes-") // that one is the controller's value
					return limit || strings.HasPrefix(arg, "--trusted-") || strings.HasPrefix(arg, "--held-") ||
						strings.HasPrefix(arg, "--waiting-")
				}) {
					t.Errorf("%s, %s: %s has %v", h.name, name, pod, template.Spec.Containers[0].Args)
				}
				for _, want := range tc.want {
					if got := slices.Contains(template.Spec.Containers[0].Args, want); got != strings.HasSuffix(pod, "-interceptor") {
						t.Errorf("%s, %s: %s has %s: %t", h.name, name, pod, want, got)
					}
				}
			}
		}
	}
}

func TestNotesTellOfMissingKEDA(t *testing.T) {
	for _, h := range helms() {
		without, err := h.render(ours, "r", "ns", values{})
		if err != nil {
			t.Fatal(err)
		}
		with, err := h.render(ours, "r", "ns", values{}, "keda.sh/v1alpha1/ScaledObject")
		if err != nil {
			t.Fatal(err)
		}
		const next, warning = "kubectl label service NAME scale-to-zero=true", "KEDA is not installed"
		if !strings.Contains(without.notes, next) || !strings.Contains(without.notes, warning) {
			t.Errorf("%s, without KEDA:\n%s", h.name, without.notes)
		}
		if !strings.Contains(with.notes, next) || strings.Contains(with.notes, warning) {
			t.Errorf("%s, with KEDA:\n%s", h.name, with.notes)
		}
	}
}

// templates returns the pod templates of all workloads.
func templates(all []runtime.Object) map[string]corev1.PodTemplateSpec {
	out := map[string]corev1.PodTemplateSpec{}
	for _, d := range only[*appsv1.Deployment](all) {
		out[key(d)] = d.Spec.Template
	}
	for _, j := range only[*batchv1.Job](all) {
		out[key(j)] = j.Spec.Template
	}
	return out
}

func TestPodsAreRestricted(t *testing.T) {
	checks, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	demoObjects, err := render4(demo, "airflow", "airflow", values{})
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(must4(t, readValues(t, "testdata/all.yaml")), objects(t, demoObjects))
	pods := templates(all)
	if len(pods) != 5 {
		t.Errorf("%d kinds of pods", len(pods))
	}
	for name, pod := range pods {
		level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
		if result := policy.AggregateCheckResults(checks.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec)); !result.Allowed {
			t.Errorf("%s: %s", name, result.ForbiddenDetail())
		}
		for _, c := range pod.Spec.Containers {
			if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
				t.Errorf("%s may write to its root file system", name)
			}
		}
	}
}

// Selectors match the right pods, whatever labels the user adds.
func TestSelectors(t *testing.T) {
	all := must4(t, readValues(t, "testdata/all.yaml"))
	pods := templates(all)
	matches := func(selector map[string]string) (names []string) {
		for name, pod := range pods {
			if labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) {
				names = append(names, name)
			}
		}
		return names
	}
	for _, d := range only[*appsv1.Deployment](all) {
		if got := matches(d.Spec.Selector.MatchLabels); !slices.Equal(got, []string{key(d)}) {
			t.Errorf("%s selects %v", key(d), got)
		}
	}
	for name, want := range map[string]string{
		"sleeper-interceptor": "Deployment/sleeper-interceptor", "sleeper-webhook": "Deployment/sleeper-controller",
	} {
		i := slices.IndexFunc(all, func(o runtime.Object) bool { return key(o) == "Service/"+name })
		service := all[i].(*corev1.Service)
		if got := matches(service.Spec.Selector); !slices.Equal(got, []string{want}) {
			t.Errorf("%s selects %v", name, got)
		}
		for _, p := range service.Spec.Ports {
			if !slices.ContainsFunc(pods[want].Spec.Containers[0].Ports,
				func(c corev1.ContainerPort) bool { return c.Name == p.TargetPort.StrVal }) {
				t.Errorf("%s has no port %q", want, p.TargetPort.StrVal)
			}
		}
	}
}

// Without it a dual-stack cluster's Services would have interceptors for one of their IP families only.
func TestInterceptorsHaveEachIPFamily(t *testing.T) {
	services := byName(only[*corev1.Service](must4(t, values{})))
	policy := services["scale-to-zero-interceptor"].Spec.IPFamilyPolicy
	if policy == nil || *policy != corev1.IPFamilyPolicyPreferDualStack {
		t.Errorf("the interceptors' Service has ipFamilyPolicy %v", policy)
	}
}

// Long names are cut so that names derived from them are valid.
func TestLongReleaseName(t *testing.T) {
	r, err := render4(ours, strings.Repeat("long", 13), "ns", withCertManager(), certManagerAPI)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects(t, r) {
		most := 63
		if kind, _, _ := strings.Cut(key(o), "/"); strings.HasPrefix(kind, "ValidatingAdmissionPolicy") {
			most = 253
		}
		if _, name, _ := strings.Cut(key(o), "/"); len(name) > most {
			t.Errorf("%s has %d characters", key(o), len(name))
		}
	}
}

func TestRBACIsNarrow(t *testing.T) {
	for name, v := range map[string]values{"defaults": {}, "cert-manager": withCertManager()} {
		t.Run(name, func(t *testing.T) { assertNarrow(t, must4(t, v)) })
	}
}

func assertNarrow(t *testing.T, all []runtime.Object) {
	t.Helper()
	rules := map[string][]rbacv1.PolicyRule{}
	for _, r := range only[*rbacv1.ClusterRole](all) {
		rules[key(r)] = r.Rules
	}
	for _, r := range only[*rbacv1.Role](all) {
		rules[key(r)] = r.Rules
	}
	if len(rules) != 6 {
		t.Errorf("%d roles", len(rules))
	}
	for name, rules := range rules {
		for _, rule := range rules {
			what := fmt.Sprintf("%s: %v", name, rule)
			for _, list := range [][]string{rule.APIGroups, rule.Resources, rule.Verbs} {
				if len(list) == 0 || slices.Contains(list, "*") {
					t.Error("a wildcard in", what)
				}
			}
			named := len(rule.ResourceNames) > 0 || slices.Equal(rule.Verbs, []string{"create"})
			sensitive := []string{"secrets", "mutatingwebhookconfigurations", "customresourcedefinitions", "certificates", "configmaps"}
			// Which Services the API server calls is known from all of them.
			found := slices.Equal(rule.Verbs, []string{"list", "watch"})
			for _, resource := range sensitive {
				public := found && (resource == "mutatingwebhookconfigurations" || resource == "customresourcedefinitions")
				if slices.Contains(rule.Resources, resource) && !named && !public {
					t.Error("for all names:", what)
				}
			}
			if slices.Contains(rule.Resources, "secrets") && strings.HasPrefix(name, "ClusterRole/") {
				t.Error("for all namespaces:", what)
			}
		}
	}
	for _, b := range only[*rbacv1.ClusterRoleBinding](all) {
		if _, ok := rules["ClusterRole/"+b.RoleRef.Name]; !ok {
			t.Errorf("%s refers to a role that is not there", key(b))
		}
		for _, s := range b.Subjects {
			if !slices.ContainsFunc(all, func(o runtime.Object) bool { return key(o) == "ServiceAccount/"+s.Name }) {
				t.Errorf("%s refers to an account that is not there", key(b))
			}
		}
	}
}

func TestWebhookNeverBlocks(t *testing.T) {
	configs := only[*admissionv1.MutatingWebhookConfiguration](must4(t, values{}))
	if len(configs) != 1 || len(configs[0].Webhooks) != 5 {
		t.Fatalf("%d configurations", len(configs))
	}
	for _, w := range configs[0].Webhooks {
		if *w.FailurePolicy != admissionv1.Ignore || *w.SideEffects != admissionv1.SideEffectClassNone || w.ClientConfig.CABundle != nil ||
			len(w.MatchConditions) == 0 {
			t.Errorf("%+v", w)
		}
		selector, err := metav1.LabelSelectorAsSelector(w.NamespaceSelector)
		if err != nil {
			t.Fatal(err)
		}
		for namespace, want := range map[string]bool{"kube-system": false, "scale-to-zero": false, "default": true} {
			if got := selector.Matches(labels.Set{"kubernetes.io/metadata.name": namespace}); got != want {
				t.Errorf("%s, namespace %s: %t", w.Name, namespace, got)
			}
		}
	}
}

func TestReplicaGuardCanBeOff(t *testing.T) {
	off := only[*admissionv1.MutatingWebhookConfiguration](must4(t, values{"replicaGuard": values{"enabled": false}}))[0]
	if slices.ContainsFunc(off.Webhooks, func(w admissionv1.MutatingWebhook) bool { return strings.HasPrefix(w.Name, "replicas.") }) {
		t.Error("it is there")
	}
}

// Only the controllers and the restore command may patch pods, and only with startupCPU.enabled.
func TestStartupCPU(t *testing.T) {
	for name, tc := range map[string]struct {
		v    values
		want map[string]string // verbs by role and resource
	}{
		"default":                             {values{}, map[string]string{"scale-to-zero-controller pods": "list"}},
		"values kept from a chart without it": {values{"startupCPU": nil}, map[string]string{"scale-to-zero-controller pods": "list"}},
		"enabled": {values{"startupCPU": values{"enabled": true}}, map[string]string{
			"scale-to-zero-controller pods": "list,patch", "scale-to-zero-controller pods/resize": "patch",
			"scale-to-zero-restore pods": "list,patch", "scale-to-zero-restore pods/resize": "patch",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			all := must4(t, tc.v)
			may := map[string][]string{}
			for _, role := range only[*rbacv1.ClusterRole](all) {
				for _, rule := range role.Rules {
					for _, resource := range rule.Resources {
						if strings.HasPrefix(resource, "pods") && slices.Contains(rule.APIGroups, "") { // not their metrics
							may[role.Name+" "+resource] = append(may[role.Name+" "+resource], rule.Verbs...)
						}
					}
				}
			}
			got := map[string]string{}
			for k, verbs := range may {
				got[k] = strings.Join(verbs, ",")
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			for pod, template := range templates(all) {
				flag := slices.Contains(template.Spec.Containers[0].Args, "--startup-cpu")
				if want := len(tc.want) > 1 && !strings.HasSuffix(pod, "-interceptor"); flag != want {
					t.Errorf("%s has the flag: %t, want %t", pod, flag, want)
				}
			}
		})
	}
}

func TestCustomWorkloadsMayBeScaled(t *testing.T) {
	all := must4(t, values{"customWorkloads": []any{values{"apiGroup": "argoproj.io", "resource": "rollouts"}}})
	may := map[string]string{}
	for _, role := range only[*rbacv1.ClusterRole](all) {
		for _, rule := range role.Rules {
			if slices.Contains(rule.APIGroups, "argoproj.io") {
				may[role.Name+" "+rule.Resources[0]] = strings.Join(rule.Verbs, ",")
			}
		}
	}
	want := map[string]string{
		"scale-to-zero-controller rollouts":       "get,list,watch,patch",
		"scale-to-zero-controller rollouts/scale": "get,patch",
	}
	if !reflect.DeepEqual(may, want) {
		t.Errorf("got %v, want %v", may, want)
	}
}

// The interceptors may scale nothing but what the controllers let them, by Roles of certain names. Those are the only Roles that the
// controllers and the uninstallation may change.
func TestInterceptorsMayScaleNothing(t *testing.T) {
	all := must4(t, values{"customWorkloads": []any{values{"apiGroup": "argoproj.io", "resource": "rollouts"}}})
	may := map[string]string{}
	rules := func(name string, all []rbacv1.PolicyRule) {
		for _, rule := range all {
			for _, resource := range rule.Resources {
				if strings.HasSuffix(name, "-interceptor") && strings.Contains(resource, "/scale") {
					t.Errorf("%s may %v %s", name, rule.Verbs, resource)
				}
			}
			if !slices.Contains(rule.APIGroups, rbacv1.GroupName) {
				continue
			}
			names := "any"
			if n := len(rule.ResourceNames); n > 0 {
				names = fmt.Sprintf("%d from %s to %s", n, rule.ResourceNames[0], rule.ResourceNames[n-1])
			}
			may[strings.Join([]string{name, strings.Join(rule.Verbs, ","), names}, " ")] = strings.Join(rule.Resources, ",")
		}
	}
	for _, role := range only[*rbacv1.ClusterRole](all) {
		rules(role.Name, role.Rules)
	}
	for _, role := range only[*rbacv1.Role](all) {
		rules(role.Name, role.Rules)
	}
	const ours = " 64 from scale-to-zero-wakes-00 to scale-to-zero-wakes-63"
	want := map[string]string{
		"scale-to-zero-controller list,watch,create any":    "roles,rolebindings",
		"scale-to-zero-controller get,update,delete" + ours: "roles,rolebindings",
		"scale-to-zero-restore list any":                    "roles,rolebindings",
		"scale-to-zero-restore delete" + ours:               "roles,rolebindings",
	}
	if !reflect.DeepEqual(may, want) {
		t.Errorf("got %v, want %v", may, want)
	}
	for pod, template := range templates(all) {
		flag := "--interceptor-service-account=scale-to-zero-interceptor"
		if has := slices.Contains(template.Spec.Containers[0].Args, flag); has != strings.HasSuffix(pod, "-controller") {
			t.Errorf("%s has the flag: %t", pod, has)
		}
	}
}
