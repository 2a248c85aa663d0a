{{/* The template of the pod of a further machine: its part of the engine, and no server. */}}
{{- define "triune.workerPod" -}}
{{- $server := .Values.server -}}
{{ include "triune.serverMetadata" (list . "worker") }}
spec:
  {{- include "triune.pod" (list . "worker" (omit $server "spread")) | nindent 2 }}
  {{- with $server.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  # It does its part for as long as its leader drains.
  terminationGracePeriodSeconds: {{ add (int $server.preStopSeconds) (int $server.drainSeconds) 15 }}
  {{- if ne .Values.engine.source "claim" }}
  initContainers:
    {{- include "triune.engineContainer" . | nindent 4 }}
  {{- end }}
  containers:
    - name: node
      image: {{ include "triune.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - node
        {{- if eq .Values.engine.source "build" }}
        - --model={{ .Values.model.name }}
        {{- else }}
        - --repository={{ include "triune.repository" . }}
        {{- end }}
        - --master=$(LWS_LEADER_ADDRESS)
        - --rank=$(LWS_WORKER_INDEX)
      env:
        {{- if eq .Values.engine.source "build" }}
        {{- include "triune.buildVariables" . | nindent 8 }}
        {{- end }}
        - {name: TRIUNE_DRAIN_S, value: {{ add (int $server.preStopSeconds) (int $server.drainSeconds) 5 | quote }}}
        {{- with $server.env }}{{ toYaml . | nindent 8 }}{{ end }}
      securityContext:
        {{- include "triune.containerSecurity" . | nindent 8 }}
      resources:
        {{- include "triune.serverResources" . | trim | nindent 8 }}
      volumeMounts:
        {{- include "triune.serverMounts" . | nindent 8 }}
  volumes:
    {{- include "triune.serverVolumes" . | nindent 4 }}
{{- end }}
