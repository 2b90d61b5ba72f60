{{/* Expressions of the admission policies, in CEL. */}}

{{/* Whether an object is opted in. Takes the object's name in the expression. */}}
{{- define "scale-to-zero.cel.optedIn" -}}
((has({{ . }}.metadata.labels) && 'scale-to-zero' in {{ . }}.metadata.labels && {{ . }}.metadata.labels['scale-to-zero'] == 'true') ||
{{- " " -}}
(has({{ . }}.metadata.annotations) && 'scale-to-zero/enabled' in {{ . }}.metadata.annotations &&
{{- " " -}}
{{ . }}.metadata.annotations['scale-to-zero/enabled'] == 'true'))
{{- end -}}

{{/* Whether a write changes settings. What the controller alone writes is no setting. */}}
{{- define "scale-to-zero.cel.settingsDiffer" -}}
[[object, oldObject], [oldObject, object]].exists(p, has(p[0].metadata.annotations) && p[0].metadata.annotations.exists(k,
{{- " " -}}
k.startsWith('scale-to-zero/') && !(k in ['scale-to-zero/enabled', 'scale-to-zero/route', 'scale-to-zero/aliases']) &&
{{- " " -}}
!(has(p[1].metadata.annotations) && k in p[1].metadata.annotations && p[1].metadata.annotations[k] == p[0].metadata.annotations[k])))
{{- end -}}

{{/* Whether a write changes what a Service selects. */}}
{{- define "scale-to-zero.cel.selectorDiffers" -}}
[[object, oldObject], [oldObject, object]].exists(p, has(p[0].spec.selector) && p[0].spec.selector.exists(k,
{{- " " -}}
k != 'scale-to-zero/intercepted' &&
{{- " " -}}
!(has(p[1].spec.selector) && k in p[1].spec.selector && p[1].spec.selector[k] == p[0].spec.selector[k])))
{{- end -}}

{{/*
The variable mayScale: whether the author of a write may scale the workload that the annotation names or, if it names none, any that
the selector may find.
*/}}
{{- define "scale-to-zero.cel.mayScale" -}}
- name: workload
  expression: >-
    has(object.metadata.annotations) && 'scale-to-zero/workload' in object.metadata.annotations ?
    object.metadata.annotations['scale-to-zero/workload'].split('/') : ['']
- name: name
  expression: "size(variables.workload) == 2 ? variables.workload[1] : ''"
# The chart's customWorkloads name resources, and the annotation a kind: all resources of its group are asked about.
- name: resources
  expression: >-
    {{- $groups := dict }}
    {{- range .Values.customWorkloads }}
    {{- $_ := set $groups .apiGroup (append (default list (get $groups .apiGroup)) (printf "%s/%s" .apiGroup .resource)) }}
    {{- end }}
    variables.name == '' ? ['apps/deployments', 'apps/statefulsets'] :
    variables.workload[0] == 'Deployment' ? ['apps/deployments'] :
    variables.workload[0] == 'StatefulSet' ? ['apps/statefulsets'] :
    {{- range $group, $resources := $groups }}
    variables.workload[0].endsWith('.{{ $group }}') ? {{ toJson $resources | replace "\"" "'" }} :
    {{- end }}
    []
{{- $most := 2 }}
{{- range $groups }}{{ $most = max $most (len .) }}{{ end }}
{{ include "scale-to-zero.cel.authorized" $most }}
{{- end -}}

{{/*
The variable mayScale, from the variables resources and name. Takes how many resources there are at most. The API server asks its
authorizer at most twice in one expression.
*/}}
{{- define "scale-to-zero.cel.authorized" -}}
{{- $all := list -}}
{{- range $i := until (int .) -}}
{{- range $verb := list "patch" "update" }}
- name: {{ $verb }}{{ $i }}
  expression: >-
    {{- $check := printf "authorizer.group(variables.resources[%d].split('/')[0]).resource(variables.resources[%d].split('/')[1])" $i $i }}
    size(variables.resources) <= {{ $i }} ||
    {{ $check }}.namespace(request.namespace).name(variables.name).check('{{ $verb }}').allowed() ||
    {{ $check }}.subresource('scale').namespace(request.namespace).name(variables.name).check('{{ $verb }}').allowed()
{{- end }}
{{- $all = append $all (printf "(variables.patch%d || variables.update%d)" $i $i) -}}
{{- end }}
- name: mayScale
  expression: {{ join " && " $all }}
{{- end -}}

{{- define "scale-to-zero.cel.mayNotScale" -}}
request.userInfo.username + ' may not put an app to sleep here: that takes the right to patch or update ' +
{{- " " -}}
variables.resources.map(r, r.split('/')[1] + (variables.name == '' ? '' : '/' + variables.name)).join(' and ') +
{{- " " -}}
' (or the scale subresource) in namespace ' + request.namespace + '. Grant it, have somebody with that right opt the app in, ' +
{{- " " -}}
'or name the one workload with annotation scale-to-zero/workload. ' +
{{- " " -}}
'The account of a deployment tool can be listed in the chart value authorization.trustedAccounts'
{{- end -}}

{{/* Whether two maps or objects, A and B, are the same but for some keys. Takes (list "A" "B" "keys"). */}}
{{- define "scale-to-zero.cel.same" -}}
{{- $a := index . 0 -}}{{- $b := index . 1 -}}{{- $but := index . 2 -}}
(dyn({{ $a }}).all(k, {{ if $but }}k in {{ $but }} || {{ end }}(k in dyn({{ $b }}) && dyn({{ $a }})[k] == dyn({{ $b }})[k])) &&
{{- " " -}}
dyn({{ $b }}).all(k, {{ if $but }}k in {{ $but }} || {{ end }}k in dyn({{ $a }})))
{{- end -}}

{{/* Whether the metadata of an object is as it was, but for our own annotations. Takes what else may differ, as a list in CEL. */}}
{{- define "scale-to-zero.cel.sameMetadata" -}}
{{- include "scale-to-zero.cel.same" (list "object.metadata" "oldObject.metadata"
  (printf "['annotations', 'managedFields', 'resourceVersion', 'generation'%s]" .)) }} &&
{{- " " -}}
[[object, oldObject], [oldObject, object]].all(p, !has(p[0].metadata.annotations) || p[0].metadata.annotations.all(k,
{{- " " -}}
k.startsWith('scale-to-zero/') || (has(p[1].metadata.annotations) && k in p[1].metadata.annotations &&
{{- " " -}}
p[1].metadata.annotations[k] == p[0].metadata.annotations[k])))
{{- end -}}

{{/* Whether an object was made by the controllers. Takes the object's name in the expression. */}}
{{- define "scale-to-zero.cel.ours" -}}
(has({{ . }}.metadata.labels) && 'app.kubernetes.io/managed-by' in {{ . }}.metadata.labels &&
{{- " " -}}
{{ . }}.metadata.labels['app.kubernetes.io/managed-by'] == 'scale-to-zero')
{{- end -}}
