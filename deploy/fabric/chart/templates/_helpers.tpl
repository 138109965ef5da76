{{/* The labels of everything that belongs to a node: (list root node). */}}
{{- define "labels" -}}
{{- $root := index . 0 }}{{ $node := index . 1 -}}
{{ include "selector" . }}
app.kubernetes.io/component: {{ $node.kind }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{/* What a node's pod is found by; it cannot be changed later. */}}
{{- define "selector" -}}
{{- $root := index . 0 }}{{ $node := index . 1 -}}
app.kubernetes.io/name: {{ $node.name }}
app.kubernetes.io/part-of: {{ $root.Values.network }}
{{- end }}
