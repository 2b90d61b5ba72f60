{{- define "scale-to-zero.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name alone if it contains the chart's. Leaves room for suffixes of 12 characters in a Service's 63. */}}
{{- define "scale-to-zero.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 51 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 51 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 51 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "scale-to-zero.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{/* The names of the Roles, and of their RoleBindings, by which the interceptors may wake apps, as JSON. */}}
{{- define "scale-to-zero.wakeRoles" -}}
{{- $names := list -}}
{{- range until 64 -}}
{{- $names = append $names (printf "scale-to-zero-wakes-%02d" .) -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* Takes (list $ "component"). */}}
{{- define "scale-to-zero.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "scale-to-zero.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Takes (list $ "component"). */}}
{{- define "scale-to-zero.labels" -}}
{{- $root := index . 0 -}}
{{ include "scale-to-zero.selector" . }}
app.kubernetes.io/part-of: scale-to-zero
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* The Secret of the certificate. Each mode has its own, so that two owners never fight over one. */}}
{{- define "scale-to-zero.certSecret" -}}
{{- include "scale-to-zero.fullname" . }}-webhook-{{ ternary "tls" "cert" (eq .Values.certs.mode "cert-manager") }}
{{- end -}}

{{/* "true" unless interceptor.mutualTLS is false. It is missing after an upgrade with --reuse-values from an older chart. */}}
{{- define "scale-to-zero.mutualTLS" -}}
{{- if ne (toString .Values.interceptor.mutualTLS) "false" }}true{{ end -}}
{{- end -}}

{{/* The port of the interceptors' gRPC server. */}}
{{- define "scale-to-zero.grpcPort" -}}
{{- ternary 9443 9090 (eq (include "scale-to-zero.mutualTLS" .) "true") -}}
{{- end -}}

{{/* The port of /metrics: the controllers', and with authentication the interceptors' too. */}}
{{- define "scale-to-zero.metricsPort" -}}
{{- if (.Values.metrics).authentication }}8443{{ else }}8080{{ end -}}
{{- end -}}

{{/* The Secret of an internal certificate. Takes (list $ "component"). Each mode has its own, as for the webhook's. */}}
{{- define "scale-to-zero.internalSecret" -}}
{{- $root := index . 0 -}}
{{- $name := get (dict "interceptor" "server" "controller" "client" "keda" "keda") (index . 1) -}}
{{- include "scale-to-zero.fullname" $root }}-{{ $name }}-{{ ternary "tls" "cert" (eq $root.Values.certs.mode "cert-manager") }}
{{- end -}}

{{/*
The namespace of KEDA, or nothing. Helm sees the cluster only when it installs or upgrades; for tools that render charts without one,
keda.namespace says it.
*/}}
{{- define "scale-to-zero.kedaNamespace" -}}
{{- with (.Values.keda).namespace -}}
{{- . -}}
{{- else -}}
{{- $api := lookup "apiregistration.k8s.io/v1" "APIService" "" "v1beta1.external.metrics.k8s.io" -}}
{{- with ($api.spec).service -}}
{{- if contains "keda" .name }}{{ .namespace }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the uninstallation deletes: the Secrets of certificates of both modes, and cert-manager's Certificates of the same names. */}}
{{- define "scale-to-zero.certificates" -}}
{{- $fullname := include "scale-to-zero.fullname" . -}}
{{- range $n, $name := list "webhook-tls" "webhook-ca" "internal-ca" "internal-authority" "server-tls" "server-cert"
      "client-tls" "client-cert" "keda-tls" "keda-cert" -}}
{{- if $n }},{{ end }}{{ $fullname }}-{{ $name }}
{{- end -}}
{{- end -}}

{{/*
The name of the certificate's issuer if it is cert-manager's own and of the kind given, or nothing. Takes (list $ "Kind").
*/}}
{{- define "scale-to-zero.issuer" -}}
{{- $root := index . 0 -}}
{{- $ref := default dict $root.Values.certs.issuerRef -}}
{{- if and (eq (default "cert-manager.io" $ref.group) "cert-manager.io") (eq (default "Issuer" $ref.kind) (index . 1)) -}}
{{- default (printf "%s-webhook-ca" (include "scale-to-zero.fullname" $root)) $ref.name -}}
{{- end -}}
{{- end -}}

{{/* The restricted Pod Security profile, for the pod and for its one container. */}}
{{- define "scale-to-zero.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "scale-to-zero.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where a component's pods may run. Takes (list $ "component"); the component is also a key of the values. */}}
{{- define "scale-to-zero.scheduling" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "scale-to-zero.selector" . | nindent 8 }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Restarts a process that hangs, and takes one that is not ready out of service within seconds. Takes the readiness period. */}}
{{- define "scale-to-zero.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: {{ . }}
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}

{{/* What all webhooks have in common; callers replace PATH. */}}
{{- define "scale-to-zero.webhook" -}}
admissionReviewVersions: [v1]
clientConfig:
  # The controller or cert-manager's cainjector fills in caBundle.
  service:
    name: {{ include "scale-to-zero.fullname" . }}-webhook
    namespace: {{ .Release.Namespace }}
    path: PATH
    port: 443
# If the webhook is down, the cluster keeps working: an app stays as it was.
failurePolicy: Ignore
matchPolicy: Equivalent
sideEffects: None
timeoutSeconds: {{ .Values.webhook.timeoutSeconds }}
reinvocationPolicy: IfNeeded
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values: {{ list "kube-system" .Release.Namespace | uniq | toJson }}
{{- end }}

{{/* Who may connect to the interceptors' own ports: rules of a NetworkPolicy. The kubelet may always probe pods of its node. */}}
{{- define "scale-to-zero.interceptorIngress" -}}
{{- if (.Values.metrics).authentication }}
- ports: [{protocol: TCP, port: 8081}]
{{- end }}
- ports: [{protocol: TCP, port: {{ if (.Values.metrics).authentication }}{{ include "scale-to-zero.metricsPort" . }}{{ else }}8081{{ end }}}]
  {{- with .Values.networkPolicies.metricsFrom }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
- ports: [{protocol: TCP, port: {{ include "scale-to-zero.grpcPort" . }}}]
  from:
    - podSelector:
        matchLabels: {app.kubernetes.io/name: {{ include "scale-to-zero.name" . }}, app.kubernetes.io/instance: {{ .Release.Name }}}
      namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ default "keda" (include "scale-to-zero.kedaNamespace" .) }}}
{{- end -}}
