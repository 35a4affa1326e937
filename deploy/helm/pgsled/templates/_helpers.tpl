{{- define "pgsled.fullname" -}}
{{- if .Values.fullnameOverride -}}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pgsled.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pgsled.labels" -}}
{{ include "pgsled.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pgsled.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "pgsled.fullname" .) .Values.serviceAccount.name }}
{{- else -}}{{ default "default" .Values.serviceAccount.name }}{{- end -}}
{{- end -}}

{{- define "pgsled.usersSecret" -}}
{{- if .Values.usersSecret.name -}}{{ .Values.usersSecret.name }}
{{- else if .Values.externalSecrets.enabled -}}
{{ default (include "pgsled.fullname" .) .Values.externalSecrets.secretName }}
{{- else -}}{{ include "pgsled.fullname" . }}-users{{- end -}}
{{- end -}}

{{- define "pgsled.usersKey" -}}
{{- if .Values.usersSecret.name -}}{{ .Values.usersSecret.key }}{{- else -}}users.toml{{- end -}}
{{- end -}}

{{- define "pgsled.metricsPort" -}}{{ .Values.openMetricsPort | int }}{{- end -}}

{{/* shutdown_timeout in seconds, rounded up. */}}
{{- define "pgsled.drainSeconds" -}}
{{- $ms := 60000 -}}
{{- if hasKey .Values "shutdownTimeout" -}}{{- $ms = .Values.shutdownTimeout | int64 -}}{{- end -}}
{{ div (add $ms 999) 1000 }}
{{- end -}}

{{/* "true" when pgdog.toml holds what must not be in a ConfigMap. */}}
{{- define "pgsled.configIsSecret" -}}
{{- $found := false -}}
{{- range .Values.databases -}}{{- if hasKey . "password" -}}{{- $found = true -}}{{- end -}}{{- end -}}
{{- with .Values.otel -}}{{- if or (hasKey . "datadogApiKey") (hasKey . "headers") -}}{{- $found = true -}}{{- end -}}{{- end -}}
{{- if $found -}}true{{- end -}}
{{- end -}}

{{/* A value as TOML has it. Strings are JSON's, which TOML reads the same. */}}
{{- define "pgsled.toml" -}}
{{- $v := . -}}
{{- if kindIs "string" $v -}}{{ $v | toJson }}
{{- else if kindIs "bool" $v -}}{{ $v }}
{{- else if kindIs "float64" $v -}}
{{- if ge $v 9223372036854775807.0 -}}9223372036854775807
{{- else if eq (floor $v) $v -}}{{ int64 $v }}
{{- else -}}{{ $v }}{{- end -}}
{{- else if or (kindIs "int" $v) (kindIs "int64" $v) -}}{{ $v }}
{{- else if kindIs "slice" $v -}}
[{{- range $i, $one := $v }}{{ if $i }}, {{ end }}{{ include "pgsled.toml" $one }}{{ end -}}]
{{- else if kindIs "map" $v -}}
{ {{- $first := true }}{{ range $key, $one := $v }}{{ if not (kindIs "invalid" $one) }}{{ if not $first }}, {{ end }}{{ $first = false }}{{ snakecase $key }} = {{ include "pgsled.toml" $one }}{{ end }}{{ end -}} }
{{- else -}}{{ fail (printf "a value of kind %s cannot be written as TOML: %v" (kindOf $v) $v) }}
{{- end -}}
{{- end -}}

{{/* The lines of one table; keys in camelCase. */}}
{{- define "pgsled.table" -}}
{{- range $key, $one := . }}
{{- if not (kindIs "invalid" $one) }}
{{ snakecase $key }} = {{ include "pgsled.toml" $one }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Keys of [general] as values name them: value name → key. YAML. */}}
{{- define "pgsled.generalKeys" -}}
{{- range $line := splitList "\n" (.Files.Get "files/general-keys") }}
{{- $key := trim $line }}
{{- if and $key (not (hasPrefix "#" $key)) }}
{{- if hasPrefix "openmetrics_" $key }}
openMetrics{{ $key | trimPrefix "openmetrics_" | title }}: {{ $key }}
{{- else }}
{{ untitle (camelcase $key) }}: {{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "pgsled.pgdogToml" -}}
{{- $values := .Values -}}
# Made by the chart from its values.
[general]
{{- $general := include "pgsled.generalKeys" . | fromYaml }}
{{- range $name, $key := $general }}
{{- if hasKey $values $name }}
{{- if not (kindIs "invalid" (index $values $name)) }}
{{ $key }} = {{ include "pgsled.toml" (index $values $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $section := list "tcp" "memory" }}
{{- $lines := dict }}
{{- range $name, $one := $values }}
{{- if regexMatch (printf "^%s[A-Z]" $section) $name }}
{{- $_ := set $lines (trimPrefix $section $name) $one }}
{{- end }}
{{- end }}
{{- if $lines }}

[{{ $section }}]
{{- include "pgsled.table" $lines }}
{{- end }}
{{- end }}
{{- range $name := list "rewrite" "multiTenant" "pgsled" "resharding" "otel" }}
{{- with index $values $name }}

[{{ snakecase $name }}]
{{- include "pgsled.table" . }}
{{- end }}
{{- end }}
{{- $lists := dict "databases" "databases" "shardedTables" "sharded_tables" "shardedMappings" "sharded_mappings" "shardedSchemas" "sharded_schemas" "omnishardedTables" "omnisharded_tables" "queryParsers" "query_parsers" "mirrors" "mirroring" }}
{{- range $name, $section := $lists }}
{{- range index $values $name }}

[[{{ $section }}]]
{{- include "pgsled.table" . }}
{{- end }}
{{- end }}
{{ end -}}

{{- define "pgsled.usersToml" -}}
# Made by the chart from its values.
{{- with .Values.adminPassword }}
[admin]
password = {{ toString . | toJson }}
{{- end }}
{{- range .Values.users }}

[[users]]
{{- include "pgsled.table" . }}
{{- end }}
{{ end -}}

{{/* What is not known, or known and cannot be acted on, is refused rather than dropped. */}}
{{- define "pgsled.check" -}}
{{- $general := include "pgsled.generalKeys" . | fromYaml -}}
{{- $own := list "nameOverride" "fullnameOverride" "image" "imagePullSecrets" "replicas" "strategy" "pooler" "replicator" "router" "resources" "noCpuLimits" "curve" "adminPassword" "databases" "users" "shardedTables" "shardedMappings" "shardedSchemas" "omnishardedTables" "queryParsers" "mirrors" "rewrite" "multiTenant" "otel" "pgsled" "resharding" "usersSecret" "configSecret" "externalSecrets" "secret" "restartOnConfigChange" "service" "preStopSleepSeconds" "terminationGracePeriodSeconds" "livenessProbe" "readinessProbe" "startupProbe" "podDisruptionBudget" "networkPolicy" "serviceMonitor" "serviceAccount" "labels" "annotations" "podLabels" "podAnnotations" "env" "extraInitContainers" "extraVolumes" "extraVolumeMounts" "priorityClassName" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "multiAz" "podAntiAffinity" "podSecurityContext" "securityContext" "global" -}}
{{- $without := dict "statefulSet" "no service keeps anything that needs a volume" "prometheusCollector" "point a Prometheus at the router's openMetricsPort (serviceMonitor)" "grafanaRemoteWrite" "point a Prometheus at the router's openMetricsPort (serviceMonitor)" "queryStats" "it is of PgDog's Enterprise Edition" "control" "it is of PgDog's Enterprise Edition" "autodiscovery" "it is of PgDog's Enterprise Edition" "qos" "it is of PgDog's Enterprise Edition" "gateway" "it is of PgDog's Enterprise Edition" "rdsCertificateBundle" "mount the bundle by extraVolumes and name it in tlsServerCaCertificate" "tlsGenerateSelfSignedCert" "mount a certificate by extraVolumes and name it in tlsCertificate and tlsPrivateKey" -}}
{{- $harmless := list "rbac" "prometheusResources" "selectorLabels" "clusterName" "prometheusPort" "plugins" "listenBacklog" -}}
{{- range $name, $one := .Values -}}
{{- if hasKey $without $name -}}
{{- $on := $one -}}
{{- if kindIs "map" $one -}}{{- $on = or (index $one "enabled") (index $one "url") -}}{{- end -}}
{{- if $on -}}{{- fail (printf "%s is not supported: %s" $name (index $without $name)) -}}{{- end -}}
{{- else if and (has $name $harmless) $one (or (eq $name "plugins") (eq $name "selectorLabels") (eq $name "clusterName")) -}}
{{- fail (printf "%s is not supported" $name) -}}
{{- else if not (or (hasKey $general $name) (has $name $own) (has $name $harmless) (regexMatch "^(tcp|memory)[A-Z]" $name)) -}}
{{- fail (printf "value %q is not known" $name) -}}
{{- end -}}
{{- end -}}
{{- if contains "pgdogdev/" .Values.image.repository -}}
{{- fail "image.repository names PgDog's image; the images here are REPOSITORY/router and so on" -}}
{{- end -}}
{{- if and .Values.image.digest (not (kindIs "map" .Values.image.digest)) -}}
{{- fail "image.digest: each service has an image of its own, so give it by service: {router: \"sha256:…\", …}" -}}
{{- end -}}
{{- if hasKey .Values.image "name" -}}{{- fail "image.name is not supported: use repository and tag" -}}{{- end -}}
{{- if and (hasKey .Values "host") (not (has .Values.host (list "0.0.0.0" "::"))) -}}
{{- fail "host: in a pod only 0.0.0.0 and :: make sense" -}}
{{- end -}}
{{- $keys := .Values.curve.keys -}}
{{- if not (or (and .Values.curve.secrets.router .Values.curve.secrets.others) (and $keys.serverPublic $keys.serverSecret $keys.clientPublic $keys.clientSecret)) -}}
{{- fail "the bus needs keys: make two pairs with `pgsled keys server` and `pgsled keys client`, and give curve.keys all four, or name two Secrets in curve.secrets" -}}
{{- end -}}
{{- if and (not .Values.configSecret.name) (not .Values.databases) -}}
{{- fail "databases is empty: name at least one, or give pgdog.toml by configSecret" -}}
{{- end -}}
{{- end -}}
