{{- define "triune.name" -}}
{{- if contains "triune" .Release.Name }}{{ .Release.Name | trunc 45 | trimSuffix "-" }}{{ else }}{{ printf "%s-triune" (.Release.Name | trunc 38) }}{{ end }}
{{- end }}

{{/* What gateways speak. */}}
{{- define "triune.scheme" -}}
{{- if .Values.gateway.tls.secret }}https{{ else }}http{{ end }}
{{- end }}

{{- define "triune.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{/* Of what is asked: (list . "server"). */}}
{{- define "triune.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: triune
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "triune.labels" -}}
{{- $root := index . 0 -}}
{{ include "triune.selector" . }}
app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{/* Settings of docs/configuration.md as variables: a map of them. */}}
{{- define "triune.settings" -}}
{{- range $name, $value := . }}
- {name: TRIUNE_{{ upper $name }}, value: {{ kindIs "float64" $value | ternary (toString (int64 $value)) (toString $value) | quote }}}
{{- end }}
{{- end }}

{{- define "triune.podSecurity" -}}
{{- range $name, $value := .Values.podSecurityContext }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }}: {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}

{{- define "triune.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What all pods say alike: (list . component its-values). */}}
{{- define "triune.pod" -}}
{{- $root := index . 0 }}{{- $component := index . 1 }}{{- $own := index . 2 -}}
automountServiceAccountToken: false
enableServiceLinks: false # they would be variables named as Triune's settings are
securityContext:
  {{- include "triune.podSecurity" $root | trim | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.spread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "triune.selector" (list $root $component) | nindent 8 }}
{{- end }}
{{- end }}

{{- define "triune.names" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}] # names
{{- end }}

{{/* All pods that compute, as peers: vLLM's processes meet at ports of their own choice. */}}
{{- define "triune.machines" -}}
{{- range list "server" "worker" }}
- podSelector:
    matchLabels: {{- include "triune.selector" (list $ .) | nindent 6 }}
{{- end }}
{{- end }}

{{/* Whether a replica is a group of pods, on several machines; empty: it is one pod. */}}
{{- define "triune.grouped" -}}
{{- if gt (int .Values.server.nodes) 1 }}yes{{ end }}
{{- end }}

{{- define "triune.scaled" -}}
apiVersion: {{ empty (include "triune.grouped" .) | ternary "apps/v1" "leaderworkerset.x-k8s.io/v1" }}
kind: {{ empty (include "triune.grouped" .) | ternary "StatefulSet" "LeaderWorkerSet" }}
name: {{ include "triune.name" . }}
{{- end }}
