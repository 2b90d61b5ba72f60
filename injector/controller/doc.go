// Package controller reads what is there, asks the pure package injector what should be there, and applies the
// difference. It has two reconcilers, and the label's way goes through them in this order:
//
//	Service ──► ServiceReconciler ──► direct Service, route slices, route annotation (admission adds the sentinel)
//	route slices ──► WorkloadReconciler ──► ScaledObject, or the workload's old replica count on the way back
//
// The route slices are the only thing that passes between them. Only the leader runs them.
//
// It may import injector and interceptor/api, and no other package of this project.
package controller
