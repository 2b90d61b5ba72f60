// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

// knownAgents returns the User-Agents of probes and scrapers, whose requests do not count. They are written as in
// Routes.IgnoreAgents. An entry has to match the beginning of the User-Agent. With an asterisk it may match the beginning of any
// word, for agents that pretend to be a browser: they begin with Mozilla and name themselves later.
//
// General-purpose programs (curl, Go-http-client, python-requests) are not in the list.
func knownAgents() []string {
	return []string{
		// Kubernetes and load balancers. The kubelet's gRPC probes send the same name.
		"kube-probe/",
		"GoogleHC/",          // https://cloud.google.com/load-balancing/docs/health-check-concepts
		"ELB-HealthChecker/", // AWS's classic, application and network load balancers
		"Amazon-Route53-Health-Check-Service",
		"Edge Health Probe",                      // https://learn.microsoft.com/azure/frontdoor/health-probes
		"Azure Traffic Manager Endpoint Monitor", // https://learn.microsoft.com/azure/traffic-manager/traffic-manager-monitoring
		"*Cloudflare-Healthchecks/",              // https://developers.cloudflare.com/fundamentals/reference/cloudflare-site-crawling
		"*Cloudflare-Traffic-Manager/",
		"Envoy/HC",
		"Consul Health Check", // https://github.com/hashicorp/consul, agent/checks/check.go

		// Scrapers of metrics.
		"Prometheus/",
		"Blackbox Exporter/", // https://github.com/prometheus/blackbox_exporter/pull/557
		"Blackbox-Exporter/", // a later version may write it so: pull/1446
		"vm_promscrape",      // VictoriaMetrics and its vmagent
		"vmagent",
		"GrafanaAgent/",
		"Alloy/",
		"OpenTelemetry Collector",
		"otelcol",
		"Datadog Agent/",

		// Uptime monitors.
		"*UptimeRobot/", // Mozilla/5.0+(compatible; UptimeRobot/2.0; …)
		"Uptime-Kuma/",
		"*Pingdom.com_bot",
		"*PingdomPageSpeed/", // after a browser's User-Agent
		"*StatusCake",
		"Better Stack",
		"*Better Uptime Bot",
		"*BetterUptime",
		"*Site24x7",
		"Datadog/Synthetics",
		"*DatadogSynthetics", // after a browser's User-Agent
		"*FreshpingBot",
		"*HetrixTools",
		"Zabbix",
		"check_http/", // Nagios' and Icinga's plugins
		"Gatus/",
	}
}
