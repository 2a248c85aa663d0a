{{/* Settings that are refused: what the chart says itself, what no setting is called, and variables that would say it again. */}}
{{- define "triune.checkSettings" -}}
{{- $known := .Files.Lines "files/settings.txt" -}}
{{- $model := dict "model" "model.name" "target" "model.target" "models" "one release for each model" "name" "model.alias" "repository" "engine.source" "nodes" "server.nodes" "gpus" "server.gpus" -}}
{{- $pod := dict "host" "services" "http_port" "services" "grpc_port" "services" "metrics_port" "services" "openai_port" "services" "http_host" "services" "grpc_host" "services" "metrics_host" "services" "openai_host" "services" "tls_cert" "gateway.tls" "tls_key" "gateway.tls" "run_folder" "nothing: pods have their own" "build_dir" "engine.volume" "config" "the settings themselves" -}}
{{- $server := merge (dict "drain_s" "server.drainSeconds" "grpc_connection_s" "server.grpcConnectionSeconds" "api_key_file" "gateway.apiKeys") $model $pod -}}
{{- $gateway := merge (dict "drain_s" "gateway.drainSeconds" "api_key_file" "gateway.apiKeys") $model $pod -}}
{{- $areas := list (list "engine.build.settings" .Values.engine.build.settings (merge (dict) $model $pod)) -}}
{{- $areas = append $areas (list "server.settings" .Values.server.settings $server) -}}
{{- $areas = append $areas (list "gateway.settings" .Values.gateway.settings $gateway) -}}
{{- range $areas -}}
{{- $area := index . 0 }}{{ $owned := index . 2 -}}
{{- range $name, $value := index . 1 -}}
{{- if hasKey $owned $name -}}
{{- fail (printf "%s.%s is %v, but the chart sets that itself; use %s" $area $name $value (index $owned $name)) -}}
{{- end -}}
{{- if not (has $name $known) -}}
{{- fail (printf "%s.%s: there is no setting of that name; docs/configuration.md lists them" $area $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $area, $variables := dict "server" .Values.server.env "gateway" .Values.gateway.env -}}
{{- range $variables -}}
{{- if hasPrefix "TRIUNE_" .name -}}
{{- fail (printf "%s.env has %s; settings go to %s.settings, as %s" $area .name $area (.name | trimPrefix "TRIUNE_" | lower)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A quantity in MiB; 0 where it is in other units. */}}
{{- define "triune.mebibytes" -}}
{{- $said := toString . -}}
{{- if regexMatch "^[0-9]+Mi$" $said }}{{ trimSuffix "Mi" $said }}
{{- else if regexMatch "^[0-9]+Gi$" $said }}{{ mul (trimSuffix "Gi" $said) 1024 }}
{{- else if regexMatch "^[0-9]+Ti$" $said }}{{ mul (trimSuffix "Ti" $said) 1048576 }}
{{- else }}0{{ end }}
{{- end }}

{{- define "triune.checkMemory" -}}
{{- range $area, $resources := dict "server" .Values.server.resources "gateway" .Values.gateway.resources -}}
{{- $least := ($resources.requests).memory | default "0" -}}
{{- $most := ($resources.limits).memory | default "0" -}}
{{- if and (int (include "triune.mebibytes" $most)) (gt (int (include "triune.mebibytes" $least)) (int (include "triune.mebibytes" $most))) -}}
{{- fail (printf "%s.resources.limits.memory is %s, less than %s.resources.requests.memory, %s; say both" $area $most $area $least) -}}
{{- end -}}
{{- end -}}
{{- $most := (.Values.server.resources.limits).memory | default "0" -}}
{{- if and (int (include "triune.mebibytes" $most)) (ge (int (include "triune.mebibytes" .Values.server.shm)) (int (include "triune.mebibytes" $most))) -}}
{{- fail (printf "server.shm is %s, which counts as memory, and server.resources.limits.memory only %s; 1Gi of shm is plenty" .Values.server.shm $most) -}}
{{- end -}}
{{- end }}
