{{/* The pod that every workload runs. Takes root, args, resources, configMap, serviceAccount; server (bool) where it serves. */}}
{{- define "lockkeeper.podSpec" -}}
{{- $v := .root.Values -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ $v.server.terminationGracePeriodSeconds }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $v.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  seccompProfile: { type: RuntimeDefault }
{{- with $v.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.sidecars }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: lockkeeper
    image: {{ include "lockkeeper.image" .root }}
    imagePullPolicy: {{ $v.image.pullPolicy }}
    args: {{ toJson .args }}
    {{- with $v.extraEnv }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if .server }}
    ports:
      - { name: http, containerPort: 8080 }
      {{- if $v.metrics.enabled }}
      - { name: metrics, containerPort: {{ $v.metrics.port }} }
      {{- end }}
    readinessProbe: { httpGet: { path: /health/ready, port: http }, periodSeconds: 5 }
    livenessProbe: { httpGet: { path: /health/live, port: http }, periodSeconds: 10, failureThreshold: 6 }
    lifecycle: { preStop: { sleep: { seconds: 5 } } }
    {{- end }}
    terminationMessagePolicy: FallbackToLogsOnError
    resources:
      {{- toYaml .resources | nindent 6 }}
    securityContext:
      {{- include "lockkeeper.security" . | nindent 6 }}
    volumeMounts:
      {{- include "lockkeeper.mounts" (dict "secrets" $v.secrets) | nindent 6 }}
      {{- with $v.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  {{- include "lockkeeper.volumes" (dict "secrets" $v.secrets "configMap" .configMap) | nindent 2 }}
  {{- with $v.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "lockkeeper.security" -}}
runAsNonRoot: true
runAsUser: 65532
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "lockkeeper.mounts" -}}
- { name: lockkeeper, mountPath: /etc/lockkeeper, readOnly: true }
{{- range $folder, $_ := .secrets }}
- { name: lockkeeper-{{ $folder }}, mountPath: /run/secrets/{{ $folder }}, readOnly: true }
{{- end }}
{{- end -}}

{{- define "lockkeeper.volumes" -}}
- name: lockkeeper
  configMap: { name: {{ .configMap }} }
{{- range $folder, $secret := .secrets }}
- name: lockkeeper-{{ $folder }}
  secret: { secretName: {{ $secret }} }
{{- end }}
{{- end -}}

{{/* For the charts of applications that have this one as a dependency: the init container with which their pods wait for
what their release brings. Takes root (.Subcharts.lockkeeper), target, chain: the place in the stream, as publish printed it, so
that an older pod also starts when the database has gone on. Its volumes are lockkeeper.waitVolumes, which takes root. */}}
{{- define "lockkeeper.waitContainer" -}}
{{- $v := .root.Values -}}
- name: lockkeeper
  image: {{ include "lockkeeper.image" .root }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  args: {{ toJson (list "wait" "--target" .target "--expect-chain" .chain "--timeout" $v.wait.timeout) }}
  {{- with $v.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationMessagePolicy: FallbackToLogsOnError
  resources:
    {{- toYaml $v.wait.resources | nindent 4 }}
  securityContext:
    {{- include "lockkeeper.security" . | nindent 4 }}
  volumeMounts:
    {{- include "lockkeeper.mounts" (dict "secrets" (default $v.secrets $v.wait.secrets)) | nindent 4 }}
{{- end -}}

{{- define "lockkeeper.waitVolumes" -}}
{{- $v := .root.Values -}}
{{- include "lockkeeper.volumes" (dict "secrets" (default $v.secrets $v.wait.secrets) "configMap" (default (include "lockkeeper.fullname" .root) $v.existingConfigMap)) -}}
{{- end -}}

{{/* What the pods read: lockkeeper.yaml, policy.json, and the files beside them. */}}
{{- define "lockkeeper.configData" -}}
{{- $config := .Values.config -}}
{{- if .Values.policy -}}
{{- $config = merge (dict "policy" "policy.json") $config -}}
{{- end -}}
{{- if .Values.metrics.enabled -}}
{{- $config = merge (dict "metrics" (printf "0.0.0.0:%v" .Values.metrics.port)) $config -}}
{{- end -}}
lockkeeper.yaml: |
  {{- toYaml $config | nindent 2 }}
{{- with .Values.policy }}
policy.json: |
  {{- toPrettyJson . | nindent 2 }}
{{- end }}
{{- range $name, $content := .Values.files }}
{{ $name }}: |
  {{- $content | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What values.schema.json cannot see: names that must be found elsewhere. */}}
{{- define "lockkeeper.check" -}}
{{- if not .Values.existingConfigMap -}}
{{- $targets := default dict (default dict .Values.config).targets -}}
{{- if not $targets -}}
{{- fail "config.targets is empty: say which databases there are, or name a ConfigMap with existingConfigMap" -}}
{{- end -}}
{{- range .Values.migrate.targets -}}
{{- if not (hasKey $targets .name) -}}
{{- fail (printf "migrate.targets: %q is not in config.targets; there are %s" .name (keys $targets | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.server.enabled (not .Values.policy) (not .Values.config.policy) -}}
{{- fail "policy is missing: the server lets nobody in without one; or set server.enabled=false" -}}
{{- end -}}
{{- if and .Values.server.enabled (not .Values.config.publicUrl) -}}
{{- fail "config.publicUrl is missing: say where callers reach the server, for instance https://migrate.example; or set server.enabled=false" -}}
{{- end -}}
{{- range $name, $target := $targets -}}
{{- $file := dig "database" "urlFile" "" $target -}}
{{- $folder := regexReplaceAll "^/run/secrets/([^/]+)/.*$" $file "${1}" -}}
{{- if and (hasPrefix "/run/secrets/" $file) (not (hasKey (default dict $.Values.secrets) $folder)) -}}
{{- fail (printf "config.targets.%s.database.urlFile: %s is in no folder of secrets; add secrets.%s with the name of the Secret" $name $file $folder) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
