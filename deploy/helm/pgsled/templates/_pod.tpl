{{/* The pod of one service. In: root, service, args, ports (name → number), keys (Secret), replicas'
     resources, volumes, mounts, grace (seconds), preStop (seconds), checksums. */}}
{{- define "pgsled.pod" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
metadata:
  labels:
    {{- include "pgsled.selector" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .service }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or $values.podAnnotations .checksums }}
  annotations:
    {{- with .checksums }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  serviceAccountName: {{ include "pgsled.serviceAccount" $root }}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ .grace }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- merge (deepCopy $values.podSecurityContext) (dict "runAsNonRoot" true "runAsUser" 6432 "runAsGroup" 6432 "fsGroup" 6432 "seccompProfile" (dict "type" "RuntimeDefault")) | toYaml | nindent 4 }}
  {{- with $values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $values.affinity }}
  affinity: {{- toYaml $values.affinity | nindent 4 }}
  {{- else if $values.podAntiAffinity.enabled }}
  affinity:
    podAntiAffinity:
      {{- if eq $values.podAntiAffinity.type "hard" }}
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "pgsled.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ .service }}
      {{- else }}
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "pgsled.selector" $root | nindent 16 }}
                app.kubernetes.io/component: {{ .service }}
      {{- end }}
  {{- end }}
  {{- if or $values.topologySpreadConstraints $values.multiAz.enabled }}
  topologySpreadConstraints:
    {{- with $values.topologySpreadConstraints }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if $values.multiAz.enabled }}
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: {{ $values.multiAz.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "pgsled.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ .service }}
    {{- end }}
  {{- end }}
  {{- with $values.extraInitContainers }}
  initContainers: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .service }}
      {{- $digest := index (default (dict) $values.image.digest) .service }}
      {{- if $digest }}
      image: {{ printf "%s/%s@%s" $values.image.repository .service $digest | quote }}
      {{- else }}
      image: {{ printf "%s/%s:%s" $values.image.repository .service (default $root.Chart.AppVersion $values.image.tag) | quote }}
      {{- end }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args: {{- toYaml .args | nindent 8 }}
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        {{- with $values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- range $name, $number := .ports }}
        - {name: {{ $name }}, containerPort: {{ $number }}, protocol: TCP}
        {{- end }}
      {{- if gt (int .preStop) 0 }}
      lifecycle:
        preStop: {exec: {command: [sleep, {{ .preStop | quote }}]}}
      {{- end }}
      startupProbe:
        {{- default (dict "httpGet" (dict "path" "/healthz" "port" "http") "periodSeconds" 1 "failureThreshold" 60) $values.startupProbe | toYaml | nindent 8 }}
      readinessProbe:
        {{- default (dict "httpGet" (dict "path" "/readyz" "port" "http") "periodSeconds" 2 "timeoutSeconds" 2 "failureThreshold" 2) $values.readinessProbe | toYaml | nindent 8 }}
      livenessProbe:
        {{- default (dict "httpGet" (dict "path" "/healthz" "port" "http") "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 6) $values.livenessProbe | toYaml | nindent 8 }}
      {{- $resources := deepCopy (default $values.resources .resources) }}
      {{- if and $values.noCpuLimits (hasKey $resources "limits") }}
      {{- $_ := unset $resources.limits "cpu" }}
      {{- end }}
      resources: {{- toYaml $resources | nindent 8 }}
      securityContext:
        {{- merge (deepCopy $values.securityContext) (dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL"))) | toYaml | nindent 8 }}
      volumeMounts:
        - {name: run, mountPath: /run/pgsled}
        - {name: keys, mountPath: /keys, readOnly: true}
        {{- with .mounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - {name: run, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    - {name: keys, secret: {secretName: {{ .keys }}, defaultMode: 0440}}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
