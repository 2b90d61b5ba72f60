{{/* What selects a component's pods. Takes (list $ "component"). */}}
{{- define "airflow-like.selector" -}}
tier: airflow
component: {{ index . 1 }}
release: {{ (index . 0).Release.Name }}
{{- end -}}

{{- define "airflow-like.labels" -}}
{{- $root := index . 0 -}}
{{ include "airflow-like.selector" . }}
chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
heritage: {{ $root.Release.Service }}
{{- end -}}

{{- define "airflow-like.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "airflow-like.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
