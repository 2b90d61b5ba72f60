// Package injector turns an opted-in Service into everything that scale-to-zero needs around it.
//
// This root package is pure: it knows no client, no clock and no log. Given what was read from the API server it says
// what should be there: the direct Service, the route slices, the ScaledObject, and what admission does to the Service
// itself. Package injector/controller reads, compares and applies.
//
//	Service (label) ── Judge ──► Routes ──► direct Service, route slices
//	                                 └────► ScaledObject of the workload
//	Service (write) ── Admit ──► sentinel in spec.selector, kept or taken out
//
// It may import the Kubernetes API types and interceptor/api, and nothing else of this project.
package injector
