{{/* Where the engine's repository lies in the container. */}}
{{- define "triune.repository" -}}
{{- if eq .Values.engine.source "archive" }}/build/{{ .Values.engine.archive.sha256 }}{{ else }}/models{{ end }}
{{- end }}

{{- define "triune.serverMounts" -}}
- {name: run, mountPath: /run/triune}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- if eq .Values.engine.source "claim" }}
- name: engine
  mountPath: /models
  readOnly: true
  {{- with .Values.engine.claim.subPath }}
  subPath: {{ . }}
  {{- end }}
{{- else }}
- {name: engine, mountPath: /build}
{{- end }}
{{- if and (eq .Values.engine.source "build") .Values.engine.build.checkpointClaim }}
- {name: checkpoint, mountPath: /checkpoint, readOnly: true}
{{- end }}
{{- end }}

{{- define "triune.buildVariables" -}}
- {name: TRIUNE_MODEL, value: {{ .Values.model.name | quote }}}
- {name: TRIUNE_TARGET, value: {{ .Values.model.target }}}
- {name: HF_HOME, value: /build/hub}
{{- if include "triune.grouped" . }}
- {name: TRIUNE_NODES, value: {{ .Values.server.nodes | int | quote }}}
{{- end }}
{{- if and (eq .Values.model.target "vllm") (gt (mul .Values.server.nodes .Values.server.gpus) 1) }}
- {name: TRIUNE_GPUS, value: {{ mul .Values.server.nodes .Values.server.gpus | quote }}}
{{- end }}
{{- include "triune.settings" .Values.engine.build.settings }}
{{- end }}

{{/* What makes or fetches the engine before a pod's container starts. */}}
{{- define "triune.engineContainer" -}}
- name: engine
  image: {{ include "triune.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if eq .Values.engine.source "build" }}
  args: [build]
  env:
    {{- include "triune.buildVariables" . | nindent 4 }}
    {{- with .Values.engine.build.tokenSecret }}{{ if .secret }}
    - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}}
    {{- end }}{{ end }}
  {{- else }}
  command: [python3, /scripts/fetch.py]
  args: [{{ .Values.engine.archive.url | quote }}, {{ .Values.engine.archive.sha256 | quote }}, {{ include "triune.repository" . }}]
  {{- end }}
  securityContext:
    {{- include "triune.containerSecurity" . | nindent 4 }}
  resources: {{- toYaml (.Values.engine.build.resources | default .Values.server.resources) | nindent 4 }}
  volumeMounts:
    {{- include "triune.serverMounts" . | nindent 4 }}
    {{- if eq .Values.engine.source "archive" }}
    - {name: scripts, mountPath: /scripts, readOnly: true}
    {{- end }}
{{- end }}

{{/* Of a pod: (list . component). */}}
{{- define "triune.serverMetadata" -}}
{{- $root := index . 0 -}}
metadata:
  labels:
    {{- include "triune.labels" . | nindent 4 }}
    {{- with $root.Values.server.labels }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if or $root.Values.server.annotations (eq $root.Values.engine.source "archive") }}
  annotations:
    {{- with $root.Values.server.annotations }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- if eq $root.Values.engine.source "archive" }}
    triune/scripts: {{ $root.Files.Get "files/fetch.py" | sha256sum | trunc 16 | quote }}
    {{- end }}
  {{- end }}
{{- end }}

{{/* The template of a server's pod. */}}
{{- define "triune.serverPod" -}}
{{- $server := .Values.server -}}
{{ include "triune.serverMetadata" (list . "server") }}
spec:
  {{- include "triune.pod" (list . "server" $server) | nindent 2 }}
  {{- with $server.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  # The wait before, the drain, and what ending takes after it (docs/operations.md).
  terminationGracePeriodSeconds: {{ add (int $server.preStopSeconds) (int $server.drainSeconds) 15 }}
  {{- if ne .Values.engine.source "claim" }}
  initContainers:
    {{- include "triune.engineContainer" . | nindent 4 }}
  {{- end }}
  containers:
    - name: server
      image: {{ include "triune.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      {{- if eq .Values.engine.source "build" }}
      args: [serve, --model={{ .Values.model.name }}]
      {{- else }}
      args: [serve, --repository={{ include "triune.repository" . }}]
      {{- end }}
      env:
        {{- if eq .Values.engine.source "build" }}
        {{- include "triune.buildVariables" . | nindent 8 }}
        {{- end }}
        {{- if include "triune.grouped" . }}
        - {name: TRIUNE_VLLM_MASTER, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        {{- end }}
        {{- with .Values.model.alias }}
        - {name: TRIUNE_NAME, value: {{ . | quote }}}
        {{- end }}
        - {name: TRIUNE_OPENAI_PORT, value: "0"} # that is the gateways'
        - {name: TRIUNE_DRAIN_S, value: {{ $server.drainSeconds | int | quote }}}
        - {name: TRIUNE_GRPC_CONNECTION_S, value: {{ $server.grpcConnectionSeconds | int | quote }}}
        {{- include "triune.settings" $server.settings | nindent 8 }}
        {{- with $server.env }}{{ toYaml . | nindent 8 }}{{ end }}
      ports:
        - {name: http, containerPort: 8000, protocol: TCP}
        - {name: grpc, containerPort: 8001, protocol: TCP}
        - {name: metrics, containerPort: 8002, protocol: TCP}
        {{- if include "triune.grouped" . }}
        - {name: machines, containerPort: 29500, protocol: TCP} # where they meet; vLLM's processes do at the next, and at any
        {{- end }}
      startupProbe: # until it has generated a token
        exec: {command: [triune, health, --deep]}
        periodSeconds: 5
        timeoutSeconds: 20
        failureThreshold: {{ div (add (int $server.startupSeconds) 4) 5 }}
      readinessProbe: # it can generate now, and is not about to stop
        exec: {command: [triune, health, --ready]}
        periodSeconds: 5
        timeoutSeconds: 10
        failureThreshold: 2
      livenessProbe:
        exec: {command: [triune, health, --live]}
        periodSeconds: 10
        timeoutSeconds: 15
        {{- if include "triune.grouped" . }}
        failureThreshold: {{ max 6 (div (add (int $server.startupSeconds) 9) 10) }} # a machine that has gone is waited for
        {{- else }}
        failureThreshold: 6 # it restarts what fails by itself; this is for when that does not help
        {{- end }}
      lifecycle:
        preStop:
          exec: {command: [sleep, {{ $server.preStopSeconds | int | quote }}]}
      securityContext:
        {{- include "triune.containerSecurity" . | nindent 8 }}
      resources:
        {{- include "triune.serverResources" . | trim | nindent 8 }}
      volumeMounts:
        {{- include "triune.serverMounts" . | nindent 8 }}
  volumes:
    {{- include "triune.serverVolumes" . | nindent 4 }}
{{- end }}

{{/* Of the container that computes, on each machine. */}}
{{- define "triune.serverResources" -}}
{{- $server := .Values.server }}
{{- range $kind := list "requests" "limits" }}
{{- $own := index $server.resources $kind | default dict }}
{{- $own = omit $own "nvidia.com/gpu" }}
{{- if and $server.gpus (eq $kind "limits") }}{{ $own = set $own "nvidia.com/gpu" (toString $server.gpus) }}{{ end }}
{{- with $own }}
{{ $kind }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "triune.serverVolumes" -}}
- {name: run, emptyDir: {sizeLimit: 1Gi}}
- {name: tmp, emptyDir: {sizeLimit: {{ .Values.server.tmp }}}}
- {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .Values.server.shm }}}}
{{- if eq .Values.engine.source "claim" }}
- {name: engine, persistentVolumeClaim: {claimName: {{ .Values.engine.claim.name }}, readOnly: true}}
{{- else if not .Values.engine.volume.size }}
- {name: engine, emptyDir: {}}
{{- end }}
{{- if and (eq .Values.engine.source "build") .Values.engine.build.checkpointClaim }}
- {name: checkpoint, persistentVolumeClaim: {claimName: {{ .Values.engine.build.checkpointClaim }}, readOnly: true}}
{{- end }}
{{- if eq .Values.engine.source "archive" }}
- {name: scripts, configMap: {name: {{ include "triune.name" . }}-scripts}}
{{- end }}
{{- end }}

{{/* A volume of each pod's own, where its engine stays. */}}
{{- define "triune.engineClaim" -}}
- metadata:
    name: engine
  spec:
    accessModes: {{ toJson .Values.engine.volume.accessModes }}
    {{- with .Values.engine.volume.storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources: {requests: {storage: {{ .Values.engine.volume.size }}}}
{{- end }}
