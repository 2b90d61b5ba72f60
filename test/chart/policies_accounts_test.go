// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"strings"
	"testing"
)

const (
	controllerAccount  = "system:serviceaccount:scale-to-zero:scale-to-zero-controller"
	interceptorAccount = "system:serviceaccount:scale-to-zero:scale-to-zero-interceptor"
)

// The accounts can do no more with their rights than they need.
func TestAccountsAreBounded(t *testing.T) {
	p := newPolicies(t, values{"startupCPU": values{"enabled": true}})
	const (
		deployment = `{metadata: {name: web, labels: {a: b}, annotations: {x: y}, resourceVersion: "1"}, spec: {replicas: 1, ` +
			`template: {spec: {containers: [{name: web, image: web}]}}}}`
		service = `{metadata: {name: web, annotations: {x: y}}, spec: {type: ClusterIP, clusterIP: 10.0.0.1, selector: {app: web}, ` +
			`ports: [{port: 80}]}}`
		direct = `{metadata: {name: web-direct, labels: {app.kubernetes.io/managed-by: scale-to-zero}, ` +
			`ownerReferences: [{apiVersion: v1, kind: Service, name: web, uid: "1"}]}, spec: {clusterIP: None, selector: {app: web}}}`
		bare    = `{metadata: {name: web}, spec: {ports: [{port: 80}]}}`
		ingress = `{metadata: {name: web, annotations: {x/default-backend: web}}, spec: {ingressClassName: x, ` +
			`defaultBackend: {service: {name: web, port: {number: 80}}}, rules: [{host: a, http: {paths: [{path: /, pathType: Prefix, ` +
			`backend: {service: {name: web, port: {number: 80}}}}, {path: /b, pathType: Prefix, backend: {service: {name: api, ` +
			`port: {name: http}}}}]}}, {host: b}]}}`
		ours = `{metadata: {name: web-deployment, labels: {app.kubernetes.io/managed-by: scale-to-zero}, ` +
			`ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: "1"}]}, spec: {maxReplicaCount: 2, triggers: []}}`
		theirs = `{metadata: {name: mine, annotations: {x: y}}, spec: {maxReplicaCount: 2, triggers: [{type: cron, metadata: {a: b}}]}}`
		pod    = `{metadata: {name: web, labels: {app: web}}, spec: {nodeName: a, containers: [{name: web, image: web, ` +
			`resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1}}}], initContainers: [{name: i, image: i}]}}`
		wakes = `{metadata: {name: scale-to-zero-wakes-07, labels: {app.kubernetes.io/managed-by: scale-to-zero}}, rules: [` +
			`{apiGroups: [apps], resources: [deployments/scale], resourceNames: [web, api], verbs: [get, patch]}, ` +
			`{apiGroups: [apps], resources: [statefulsets/scale], resourceNames: [db], verbs: [get, patch]}]}`
		bound = `{metadata: {name: scale-to-zero-wakes-07, labels: {app.kubernetes.io/managed-by: scale-to-zero}}, ` +
			`roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: scale-to-zero-wakes-07}, ` +
			`subjects: [{kind: ServiceAccount, name: scale-to-zero-interceptor, namespace: scale-to-zero}]}`
		webhook = `{metadata: {name: scale-to-zero}, webhooks: [{name: a, failurePolicy: Ignore, clientConfig: {service: {name: a, ` +
			`namespace: b}}, rules: [{resources: [services]}]}]}`
	)
	change := func(text string, pairs ...string) string {
		changed := strings.NewReplacer(pairs...).Replace(text)
		if changed == text {
			t.Fatalf("nothing of %q is in %s", pairs, text)
		}
		return changed
	}
	for name, tc := range map[string]struct {
		policy      string
		object, old string
		denied      bool
	}{
		"waking":                   {"interceptor-wakes", `{spec: {replicas: 2}}`, `{spec: {replicas: 0}}`, false},
		"waking, none said":        {"interceptor-wakes", `{spec: {replicas: 2}}`, `{spec: {}}`, false},
		"waking, no spec":          {"interceptor-wakes", `{spec: {replicas: 2}}`, `{metadata: {name: web}}`, false},
		"putting to sleep":         {"interceptor-wakes", `{spec: {replicas: 0}}`, `{spec: {replicas: 2}}`, true},
		"putting to sleep, unsaid": {"interceptor-wakes", `{spec: {}}`, `{spec: {replicas: 2}}`, true},
		"scaling up":               {"interceptor-wakes", `{spec: {replicas: 3}}`, `{spec: {replicas: 2}}`, true},
		"scaling by nothing":       {"interceptor-wakes", `{spec: {replicas: 2}}`, `{spec: {replicas: 2}}`, true},
		"a note on a workload":     {"controller-workloads", change(deployment, "x: y", `x: y, scale-to-zero/replicas: "1"`), deployment, false},
		"the note goes":            {"controller-workloads", deployment, change(deployment, "x: y", `x: y, scale-to-zero/replicas: "1"`), false},
		"field ownership": {"controller-workloads", change(deployment, `resourceVersion: "1"`,
			`managedFields: [{manager: a}]`), deployment, false},
		"another annotation":  {"controller-workloads", change(deployment, "x: y", "x: z"), deployment, true},
		"one more annotation": {"controller-workloads", change(deployment, "x: y", "x: y, z: y"), deployment, true},
		"no annotations":      {"controller-workloads", change(deployment, "annotations: {x: y},", ""), deployment, true},
		"a label":             {"controller-workloads", change(deployment, "a: b", "a: c"), deployment, true},
		"an owner": {"controller-workloads", change(deployment, "name: web, labels",
			"name: web, ownerReferences: [{name: x}], labels"), deployment, true},
		"the image":    {"controller-workloads", change(deployment, "image: web", "image: evil"), deployment, true},
		"the count":    {"controller-workloads", change(deployment, "replicas: 1", "replicas: 0"), deployment, true},
		"a field more": {"controller-workloads", change(deployment, "replicas: 1", "replicas: 1, paused: true"), deployment, true},
		"the sentinel": {"controller-services", change(service, "app: web",
			`app: web, scale-to-zero/intercepted: "true"`, "x: y", "x: y, scale-to-zero/route: ready"), service, false},
		"the sentinel goes": {"controller-services", service, change(service, "app: web",
			`app: web, scale-to-zero/intercepted: "true"`), false},
		"another key":   {"controller-services", change(service, "app: web", "app: web, tier: a"), service, true},
		"another value": {"controller-services", change(service, "app: web", "app: db"), service, true},
		"no selector":   {"controller-services", change(service, "selector: {app: web},", ""), service, true},
		"a selector":    {"controller-services", change(bare, "ports", "selector: {app: web}, ports"), bare, true},
		"an annotated bare one": {"controller-services", change(bare, "name: web",
			"name: web, annotations: {scale-to-zero/x: y}"), bare, false},
		"ports": {"controller-services", change(service, "port: 80", "port: 81"), service, true},
		"external addresses": {"controller-services", change(service, "type: ClusterIP",
			"type: ClusterIP, externalIPs: [1.2.3.4]"), service, true},
		"labels of a Service": {"controller-services", change(service, "name: web", "name: web, labels: {a: b}"), service, true},
		"taking over": {"controller-services", change(service, "name: web",
			"name: web, labels: {app.kubernetes.io/managed-by: scale-to-zero}"), service, true},
		"giving away":              {"controller-services", change(direct, "managed-by: scale-to-zero", "managed-by: Helm"), direct, true},
		"deleting":                 {"controller-services", "", service, true},
		"creating":                 {"controller-services", service, "", true},
		"our own":                  {"controller-services", direct, "", false},
		"our own without an owner": {"controller-services", change(direct, "kind: Service", "kind: Deployment"), "", true},
		"our own outside":          {"controller-services", change(direct, "clusterIP: None", "type: LoadBalancer"), "", true},
		"changing our own":         {"controller-services", change(direct, "app: web", "app: db"), direct, false},
		"our own becomes external": {"controller-services", change(direct, "clusterIP: None", "externalIPs: [1.2.3.4]"), direct, true},
		"deleting our own":         {"controller-services", "", direct, false},
		"an alias": {"controller-ingresses", change(ingress, "name: web, port", "name: web-scale-to-zero, port",
			"default-backend: web", "default-backend: web-scale-to-zero", "annotations: {",
			"annotations: {scale-to-zero/aliases: web=web-scale-to-zero, "), ingress, false},
		"an alias goes": {"controller-ingresses", ingress, change(ingress, "name: web, port",
			"name: web-scale-to-zero, port"), false},
		"another backend": {"controller-ingresses", change(ingress, "name: api", "name: web"), ingress, true},
		"another's alias": {"controller-ingresses", change(ingress, "name: api", "name: web-scale-to-zero"), ingress, true},
		"another default": {"controller-ingresses", change(ingress, "defaultBackend: {service: {name: web",
			"defaultBackend: {service: {name: evil"), ingress, true},
		"no default": {"controller-ingresses", change(ingress,
			"defaultBackend: {service: {name: web, port: {number: 80}}},", ""), ingress, true},
		"another host": {"controller-ingresses", change(ingress, "host: a", "host: c"), ingress, true},
		"another path": {"controller-ingresses", change(ingress, "path: /b", "path: /c"), ingress, true},
		"another port": {"controller-ingresses", change(ingress, "name: http", "name: metrics"), ingress, true},
		"a class":      {"controller-ingresses", change(ingress, "ingressClassName: x", "ingressClassName: y"), ingress, true},
		"an Ingress's annotation": {"controller-ingresses", change(ingress, "x/default-backend: web",
			"x/default-backend: web, nginx.ingress.kubernetes.io/server-snippet: evil"), ingress, true},
		"an Ingress's label": {"controller-ingresses", change(ingress, "name: web, annotations",
			"name: web, labels: {a: b}, annotations"), ingress, true},
		"our ScaledObject": {"controller-scaledobjects", ours, "", false},
		"one of no owner": {"controller-scaledobjects", change(ours,
			`ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: "1"}]`, "ownerReferences: []"), "", true},
		"another ScaledObject": {"controller-scaledobjects", theirs, "", true},
		"changing ours":        {"controller-scaledobjects", change(ours, "maxReplicaCount: 2", "maxReplicaCount: 3"), ours, false},
		"deleting ours":        {"controller-scaledobjects", "", ours, false},
		"deleting theirs":      {"controller-scaledobjects", "", theirs, true},
		"a trigger in theirs": {"controller-scaledobjects", change(theirs, "triggers: [",
			"triggers: [{type: external-push, name: scale-to-zero}, ", "x: y", `x: y, scale-to-zero/trigger: "{}"`), theirs, false},
		"another trigger": {"controller-scaledobjects", change(theirs, "triggers: [",
			"triggers: [{type: cron, metadata: {}}, "), theirs, true},
		"a trigger goes":       {"controller-scaledobjects", change(theirs, "{type: cron, metadata: {a: b}}", ""), theirs, true},
		"the bounds of theirs": {"controller-scaledobjects", change(theirs, "maxReplicaCount: 2", "maxReplicaCount: 9"), theirs, true},
		"pausing theirs": {"controller-scaledobjects", change(theirs, "x: y",
			`x: y, autoscaling.keda.sh/paused-replicas: "0"`), theirs, false},
		"another note on theirs":    {"controller-scaledobjects", change(theirs, "x: y", "x: z"), theirs, true},
		"a CPU limit":               {"controller-pods", change(pod, "cpu: 1, memory", "cpu: 2, memory"), pod, false},
		"the mark":                  {"controller-pods", change(pod, "app: web", "app: web, scale-to-zero/raised-cpu: x"), pod, false},
		"a CPU request":             {"controller-pods", change(pod, "requests: {cpu: 1}", "requests: {cpu: 2}"), pod, true},
		"memory":                    {"controller-pods", change(pod, "memory: 1Gi", "memory: 2Gi"), pod, true},
		"a pod's image":             {"controller-pods", change(pod, "image: web", "image: evil"), pod, true},
		"an init container's image": {"controller-pods", change(pod, "image: i", "image: evil"), pod, true},
		"a pod's label":             {"controller-pods", change(pod, "app: web", "app: db"), pod, true},
		"a node":                    {"controller-pods", change(pod, "nodeName: a", "nodeName: b"), pod, true},
		"what may be woken":         {"controller-roles", wakes, "", false},
		"no name more":              {"controller-roles", change(wakes, "rules: [", "x: ["), wakes, false},
		"one name more":             {"controller-roles", change(wakes, "[db]", "[db, db2]"), wakes, false},
		"deleting our Role":         {"controller-roles", "", wakes, false},
		"a Role of another name":    {"controller-roles", change(wakes, "wakes-07", "wakes-7"), "", true},
		"a longer name":             {"controller-roles", change(wakes, "wakes-07", "wakes-077"), "", true},
		"a Role without our label":  {"controller-roles", change(wakes, "managed-by: scale-to-zero", "managed-by: Helm"), "", true},
		"deleting somebody's Role":  {"controller-roles", "", change(wakes, "managed-by: scale-to-zero", "managed-by: Helm"), true},
		"taking over a Role":        {"controller-roles", wakes, change(wakes, "managed-by: scale-to-zero", "managed-by: Helm"), true},
		"all names":                 {"controller-roles", change(wakes, "resourceNames: [db], ", ""), wakes, true},
		"no names":                  {"controller-roles", change(wakes, "[db]", "[]"), wakes, true},
		"the verb update":           {"controller-roles", change(wakes, "[get, patch]}, ", "[get, patch, update]}, "), wakes, true},
		"all verbs":                 {"controller-roles", change(wakes, "[get, patch]}, ", "['*']}, "), wakes, true},
		"workloads":                 {"controller-roles", change(wakes, "deployments/scale", "deployments"), wakes, true},
		"anything's scale":          {"controller-roles", change(wakes, "deployments/scale", "'*/scale'"), wakes, true},
		"all resources":             {"controller-roles", change(wakes, "deployments/scale", "'*'"), wakes, true},
		"one resource more":         {"controller-roles", change(wakes, "deployments/scale", "deployments/scale, x/scale"), wakes, true},
		"another group":             {"controller-roles", change(wakes, "[apps], resources: [d", "[''], resources: [d"), wakes, true},
		"two groups":                {"controller-roles", change(wakes, "[apps], resources: [d", "[apps, x], resources: [d"), wakes, true},
		"all groups":                {"controller-roles", change(wakes, "[apps], resources: [d", "['*'], resources: [d"), wakes, true},
		"a path":                    {"controller-roles", change(wakes, "[db], ", "[db], nonResourceURLs: [/x], "), wakes, true},
		"binding it":                {"controller-rolebindings", bound, "", false},
		"binding it to nobody":      {"controller-rolebindings", change(bound, "subjects: [", "x: ["), "", true},
		"for the old account":       {"controller-rolebindings", bound, change(bound, "name: scale-to-zero-interceptor", "name: old"), false},
		"deleting our binding":      {"controller-rolebindings", "", bound, false},
		"deleting another binding":  {"controller-rolebindings", "", change(bound, "managed-by: scale-to-zero", "managed-by: Helm"), true},
		"binding another Role":      {"controller-rolebindings", change(bound, "Role, name: scale-to-zero-wakes-07", "Role, name: x"), "", true},
		"binding a ClusterRole":     {"controller-rolebindings", change(bound, "kind: Role,", "kind: ClusterRole,"), "", true},
		"binding the controllers":   {"controller-rolebindings", change(bound, "zero-interceptor", "zero-controller"), "", true},
		"another's account":         {"controller-rolebindings", change(bound, "namespace: scale-to-zero}", "namespace: default}"), "", true},
		"a user":                    {"controller-rolebindings", change(bound, "kind: ServiceAccount", "kind: User"), "", true},
		"somebody more":             {"controller-rolebindings", change(bound, "subjects: [", "subjects: [{kind: User, name: eve}, "), "", true},
		"a CA":                      {"controller-webhook", change(webhook, "namespace: b}", "namespace: b}, caBundle: x"), webhook, false},
		"another Service":           {"controller-webhook", change(webhook, "namespace: b}", "namespace: c}"), webhook, true},
		"another rule":              {"controller-webhook", change(webhook, "[services]", "[secrets]"), webhook, true},
		"a failure policy":          {"controller-webhook", change(webhook, "Ignore", "Fail"), webhook, true},
		"one webhook more": {"controller-webhook", change(webhook, "webhooks: [",
			"webhooks: [{name: b, clientConfig: {}}, "), webhook, true},
	} {
		t.Run(name, func(t *testing.T) {
			account, other := controllerAccount, interceptorAccount
			if strings.HasPrefix(tc.policy, "interceptor") {
				account, other = other, account
			}
			p := policies{t, p.validator}
			if got := p.judge(tc.policy, write{by: account, object: tc.object, old: tc.old}); (got != "") != tc.denied {
				t.Errorf("denied: %q, want %t", got, tc.denied)
			}
			for _, by := range []string{other, "somebody", account + "2"} {
				if got := p.judge(tc.policy, write{by: by, object: tc.object, old: tc.old}); got != "" {
					t.Errorf("it concerns %s: %s", by, got)
				}
			}
		})
	}
}

// Whoever opts in may scale.
func TestAuthorization(t *testing.T) {
	p := newPolicies(t, values{
		"customWorkloads": []any{values{"apiGroup": "argoproj.io", "resource": "rollouts"}},
		"authorization":   values{"trustedAccounts": []any{"system:serviceaccount:argocd:controller"}},
	})
	named := func(workload string) string {
		return `{metadata: {name: web, labels: {scale-to-zero: "true"}, annotations: {scale-to-zero/workload: ` + workload + `}}, ` +
			`spec: {selector: {app: web}}}`
	}
	const (
		plain   = `{metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}], type: ClusterIP}}`
		optedIn = `{metadata: {name: web, labels: {scale-to-zero: "true"}}, spec: {selector: {app: web}, ports: [{port: 80}], type: ClusterIP}}`
		other   = `{metadata: {name: web, labels: {scale-to-zero: "true"}}, spec: {selector: {app: db}, ports: [{port: 80}], type: ClusterIP}}`
		taken   = `{metadata: {name: web, labels: {scale-to-zero: "true"}, annotations: {scale-to-zero/route: ready}}, ` +
			`spec: {selector: {app: web, scale-to-zero/intercepted: "true"}, ports: [{port: 80}], type: ClusterIP}}`
		ingress = `{metadata: {name: web, annotations: {scale-to-zero/enabled: "true"}}, spec: {rules: [{}, ` +
			`{http: {paths: [{backend: {resource: {}}}, {backend: {service: {name: web}}}]}}]}}`
		aliased = `{metadata: {name: web, labels: {scale-to-zero: "true"}, ` +
			`annotations: {scale-to-zero/aliases: "api=x,web=web-scale-to-zero"}}, spec: {}}`
		pods = `{metadata: {name: web}, spec: {template: {metadata: {labels: {app: web, tier: a}}}}}`
	)
	both := []string{"patch deployments.apps", "update statefulsets.apps/scale"}
	in := map[string]string{"scale-to-zero": "true"}
	for name, tc := range map[string]struct {
		policy string
		write
		denied string
	}{
		"nothing": {
			"opt-in-services",
			write{object: optedIn},
			"somebody may not put an app to sleep here: that takes the right to patch or update " +
				"deployments and statefulsets (or the scale subresource) in namespace shop. ",
		},
		"reading": {"opt-in-services", write{object: optedIn, may: []string{
			"get deployments.apps",
			"list statefulsets.apps",
		}}, "may not"},
		"both":     {"opt-in-services", write{object: optedIn, may: both}, ""},
		"one kind": {"opt-in-services", write{object: optedIn, may: both[:1]}, "may not"},
		"one name": {"opt-in-services", write{object: named("Deployment/web"), may: []string{"update deployments.apps web"}}, ""},
		"the scale of one name": {"opt-in-services", write{
			object: named("StatefulSet/db"),
			may:    []string{"patch statefulsets.apps/scale db"},
		}, ""},
		"another name": {"opt-in-services", write{
			object: named("Deployment/web"),
			may:    []string{"patch deployments.apps db"},
		}, "patch or update deployments/web (or"},
		"a custom resource": {"opt-in-services", write{object: named("Rollout.argoproj.io/web"), may: both}, "rollouts/web"},
		"the custom resource": {"opt-in-services", write{
			object: named("Rollout.argoproj.io/web"),
			may:    []string{"patch rollouts.argoproj.io"},
		}, ""},
		"a resource not scaled": {"opt-in-services", write{object: named("Gallery.example.com/web")}, ""},
		"an unreadable one":     {"opt-in-services", write{object: named("web")}, "may not"},
		"a trusted account":     {"opt-in-services", write{by: "system:serviceaccount:argocd:controller", object: optedIn}, ""},
		"our controller":        {"opt-in-services", write{by: controllerAccount, object: taken, old: optedIn}, ""},
		"a plain Service":       {"opt-in-services", write{object: plain}, ""},
		"the label comes":       {"opt-in-services", write{object: optedIn, old: plain}, "may not"},
		"the label goes":        {"opt-in-services", write{object: plain, old: optedIn}, ""},
		"no change":             {"opt-in-services", write{object: optedIn, old: optedIn}, ""},
		"a chart, again":        {"opt-in-services", write{object: optedIn, old: taken}, ""},
		"another selector":      {"opt-in-services", write{object: other, old: taken}, "may not"},
		"a setting":             {"opt-in-services", write{object: named("Deployment/web"), old: optedIn}, "may not"},
		"a setting goes":        {"opt-in-services", write{object: optedIn, old: named("Deployment/web")}, "may not"},
		"an Ingress":            {"opt-in-ingresses", write{object: ingress}, "may not"},
		"an Ingress, allowed":   {"opt-in-ingresses", write{object: ingress, may: both}, ""},
		"an Ingress again":      {"opt-in-ingresses", write{object: ingress, old: ingress}, ""},
		"an Ingress's backend": {"opt-in-ingresses", write{
			object: strings.Replace(ingress, "name: web}", "name: db}", 1),
			old:    ingress,
		}, "may not"},
		"behind":                  {"opt-in-backends", write{object: other, old: plain, params: ingress}, "may not"},
		"behind, allowed":         {"opt-in-backends", write{object: other, old: plain, params: ingress, may: both}, ""},
		"behind, anew":            {"opt-in-backends", write{object: plain, params: ingress}, "may not"},
		"behind, by alias":        {"opt-in-backends", write{object: plain, params: aliased}, "may not"},
		"behind, the same":        {"opt-in-backends", write{object: plain, old: plain, params: ingress}, ""},
		"behind another":          {"opt-in-backends", write{object: strings.Replace(plain, "name: web", "name: db", 1), params: ingress}, ""},
		"behind one not opted in": {"opt-in-backends", write{object: plain, params: strings.Replace(ingress, `"true"`, `"false"`, 1)}, ""},
		"in a Namespace": {
			"opt-in-namespaced-deployments",
			write{object: plain, params: pods, namespace: in},
			"patch or update deployments/web (or",
		},
		"in it, allowed": {"opt-in-namespaced-deployments", write{
			object: plain, params: pods, namespace: in,
			may: []string{"patch deployments.apps web"},
		}, ""},
		"in it, other pods": {"opt-in-namespaced-deployments", write{object: other, params: pods, namespace: in}, ""},
		"in it, opted out": {"opt-in-namespaced-deployments", write{
			object: strings.Replace(optedIn, `"true"`, `"false"`, 1),
			params: pods, namespace: in,
		}, ""},
		"in it, the same": {"opt-in-namespaced-deployments", write{object: plain, old: plain, params: pods, namespace: in}, ""},
		"in it, a type": {"opt-in-namespaced-deployments", write{object: strings.Replace(plain, "ClusterIP", "NodePort",
			1), old: plain, params: pods, namespace: in}, "may not"},
		"in another": {"opt-in-namespaced-deployments", write{object: plain, params: pods}, ""},
		"in it, a StatefulSet": {"opt-in-namespaced-statefulsets", write{
			object: plain, params: pods, namespace: in,
			may: []string{"patch deployments.apps"},
		}, "statefulsets/web"},
	} {
		t.Run(name, func(t *testing.T) {
			p := policies{t, p.validator}
			got := p.judge(tc.policy, tc.write)
			if (got == "") != (tc.denied == "") || !strings.Contains(got, tc.denied) {
				t.Errorf("denied: %q, want %q", got, tc.denied)
			}
		})
	}
}

// The values switch the policies off.
func TestPoliciesCanBeSwitchedOff(t *testing.T) {
	for _, tc := range []struct {
		v    values
		want int
	}{
		{values{}, 14},
		{values{"startupCPU": values{"enabled": true}}, 16},
		{values{"startupCPU": values{"enabled": true}, "uninstall": values{"restore": false}}, 15},
		{withCertManager(), 13},
		{values{"authorization": values{"check": false}}, 9},
		{values{"admissionPolicies": values{"enabled": false}}, 0},
	} {
		if got := len(newPolicies(t, tc.v).validator); got != tc.want {
			t.Errorf("%v: %d policies, want %d", tc.v, got, tc.want)
		}
	}
}
