// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package route

// knownAgents are the User-Agents of probes and scrapers, whose requests are not visits: written as
// in Routes.IgnoreAgents. What only begins with its name is asked for at the beginning alone; what pretends to be a browser
// (it begins with Mozilla, and then names itself) as a word.
//
// Programs that anybody uses for anything (curl, Go-http-client, python-requests) are not among them.
func knownAgents() []string {
	return []string{
		// Kubernetes and load balancers. Kubelets probe by gRPC with the same name.
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
		"Blackbox-Exporter/", // what a later version may be: pull/1446
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
		"*PingdomPageSpeed/", // behind a browser's
		"*StatusCake",
		"Better Stack",
		"*Better Uptime Bot",
		"*BetterUptime",
		"*Site24x7",
		"Datadog/Synthetics",
		"*DatadogSynthetics", // behind a browser's
		"*FreshpingBot",
		"*HetrixTools",
		"Zabbix",
		"check_http/", // Nagios' and Icinga's plugins
		"Gatus/",
	}
}
