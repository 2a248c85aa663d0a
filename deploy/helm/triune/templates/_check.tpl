{{/* What a schema cannot say, or not in a sentence. */}}
{{- define "triune.check" -}}
{{- $engine := .Values.engine -}}
{{- include "triune.checkSettings" . -}}
{{- include "triune.checkMemory" . -}}
{{- if and (not .Values.image.digest) (eq .Values.image.tag "latest") -}}
{{- fail "image.tag is latest: nobody can say what that is, nor go back to it; name a version, e.g. --set image.tag=0.1.0" -}}
{{- end -}}
{{- if and (eq $engine.source "archive") (not $engine.archive.url) -}}
{{- fail "engine.source is archive, but engine.archive.url is empty; name where the packed model repository lies" -}}
{{- end -}}
{{- if and (eq $engine.source "archive") (not $engine.archive.sha256) -}}
{{- fail "engine.source is archive, but engine.archive.sha256 is empty; `sha256sum FILE` says it" -}}
{{- end -}}
{{- if and (eq $engine.source "claim") (not $engine.claim.name) -}}
{{- fail "engine.source is claim, but engine.claim.name is empty; name a PersistentVolumeClaim that has a model repository" -}}
{{- end -}}
{{- if and (ne .Values.model.target "cpu") (not .Values.server.gpus) -}}
{{- fail (printf "model.target is %s, but server.gpus is 0; ask for a GPU, or take values-cpu.yaml" .Values.model.target) -}}
{{- end -}}
{{- if and (eq .Values.model.target "cpu") .Values.server.gpus -}}
{{- fail (printf "model.target is cpu, but server.gpus is %d and the image is %s; take -f values-cpu.yaml" (int .Values.server.gpus) (include "triune.image" .)) -}}
{{- end -}}
{{- if and (eq $engine.source "build") (hasPrefix "/" .Values.model.name) (not $engine.build.checkpointClaim) -}}
{{- fail (printf "model.name is %s, a folder of the container, but nothing is mounted there; name a PersistentVolumeClaim in engine.build.checkpointClaim, which is mounted at /checkpoint" .Values.model.name) -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.replicas) -}}
{{- fail "gateway.replicas is 0; for none say gateway.enabled=false" -}}
{{- end -}}
{{- include "triune.checkMachines" . -}}
{{- if le (int .Values.server.preStopSeconds) (int .Values.server.grpcConnectionSeconds) -}}
{{- fail (printf "server.preStopSeconds is %d and server.grpcConnectionSeconds %d: a connection would outlast the wait before a stop, and its requests be refused; make preStopSeconds larger, by 5 at least" (int .Values.server.preStopSeconds) (int .Values.server.grpcConnectionSeconds)) -}}
{{- end -}}
{{- if and (ne .Values.autoscaling.kind "none") (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas is %d and maxReplicas %d; the first must not be larger" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- end }}

{{/* Engines that several GPUs or machines serve. */}}
{{- define "triune.checkMachines" -}}
{{- $server := .Values.server }}{{ $settings := .Values.engine.build.settings }}{{ $devices := mul $server.nodes $server.gpus -}}
{{- if and (include "triune.grouped" .) (ne .Values.model.target "vllm") -}}
{{- fail (printf "server.nodes is %d, but model.target is %s, whose engines run on one machine; take model.target=vllm, or server.nodes=1" (int $server.nodes) .Values.model.target) -}}
{{- end -}}
{{- if eq .Values.model.target "vllm" -}}
{{- $least := mul 240 $server.gpus -}}
{{- if lt (int (include "triune.mebibytes" $server.shm)) (int $least) -}}
{{- fail (printf "server.shm is %s, but vLLM lays out 240 MiB there for each of %d GPUs; make it %dGi, by --set server.shm" $server.shm (int $server.gpus) (int (add 1 (div (add $least 1023) 1024)))) -}}
{{- end -}}
{{- if and (eq .Values.engine.source "build") (gt (int $devices) 1) (not (or $settings.gpu $settings.tensor_parallel $settings.pipeline_parallel $settings.data_parallel)) -}}
{{- fail (printf "the engine is split over %d GPUs, which the init container does not see; name them, e.g. engine.build.settings.gpu=h200, or say the split, e.g. engine.build.settings.tensor_parallel=%d" (int $devices) (int $server.gpus)) -}}
{{- end -}}
{{- end -}}
{{- end }}
