{{- define "fleet.labels" -}}
app.kubernetes.io/name: psp-fleet
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* The selector of one component: (dict "root" $ "component" NAME). */}}
{{- define "fleet.selector" -}}
app.kubernetes.io/name: psp-fleet
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "fleet.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* A rail with the defaults merged in, as YAML: (dict "root" $ "name" NAME "rail" RAIL). */}}
{{- define "fleet.rail" -}}
{{- $rail := mergeOverwrite (deepCopy .root.Values.railDefaults) (.rail | default dict) }}
{{- $_ := set $rail "module" ($rail.module | default (printf "adapters.%s" .name)) }}
{{- $_ := set $rail "secret" ($rail.secret | default (printf "fleet-rail-%s" (include "fleet.slug" .name))) }}
{{- $_ := set $rail "component" (printf "rail-%s" (include "fleet.slug" .name)) }}
{{- toYaml $rail }}
{{- end }}

{{- /* A rail's name as Kubernetes takes names. */}}
{{- define "fleet.slug" -}}
{{- . | replace "_" "-" }}
{{- end }}

{{- define "fleet.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
serviceAccountName: {{ .root.Release.Name }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "fleet.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "fleet.container" -}}
image: {{ include "fleet.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "fleet.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 2
  failureThreshold: 60
# The loops of the process alone: a restart mends neither Redis nor PostgreSQL nor a provider.
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{- define "fleet.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
- name: secrets
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}

{{- define "fleet.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: secrets, mountPath: /run/fleet, readOnly: true}
{{- end }}

{{- define "fleet.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{- /* rail=count for each rail whose jobs are spread over several streams. */}}
{{- define "fleet.rail_shards" -}}
{{- $found := list }}
{{- range $name, $given := .Values.rails }}
{{- $rail := include "fleet.rail" (dict "root" $ "name" $name "rail" $given) | fromYaml }}
{{- if gt (int $rail.shards) 1 }}{{ $found = append $found (printf "%s=%d" $name (int $rail.shards)) }}{{ end }}
{{- end }}
{{- $found | join "," }}
{{- end }}

{{- define "fleet.rail_names" -}}
{{- keys .Values.rails | sortAlpha | join "," }}
{{- end }}
