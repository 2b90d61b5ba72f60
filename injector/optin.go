// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EnabledAnnotation is OptInLabel as an annotation: many charts have a value for a Service's annotations, but none for its labels.
const EnabledAnnotation = Prefix + "enabled"

// OptedIn reports whether the label or the annotation of a Service, an Ingress or a Namespace opts it in. It is an error if a value
// is neither "true" nor "false", or if the two differ.
func OptedIn(o metav1.Object) (bool, error) {
	label, labelled := o.GetLabels()[OptInLabel]
	annotation, annotated := o.GetAnnotations()[EnabledAnnotation]
	switch {
	case labelled && !isBool(label):
		return false, &SettingError{Key: "label " + OptInLabel, Value: label, Allowed: `allowed is "true" or "false"`}
	case annotated && !isBool(annotation):
		return false, &SettingError{Key: "annotation " + EnabledAnnotation, Value: annotation, Allowed: `allowed is "true" or "false"`}
	case labelled && annotated && label != annotation:
		return false, &SettingError{
			Key: "annotation " + EnabledAnnotation, Value: annotation,
			Allowed: fmt.Sprintf("label %s is %q, and both have to agree; change or remove one of them", OptInLabel, label),
		}
	}
	return label == "true" || annotation == "true", nil
}

// OptedOut reports whether the label or the annotation of a Service or an Ingress opts it out of its Namespace's opt-in.
func OptedOut(o metav1.Object) bool {
	return o.GetLabels()[OptInLabel] == "false" || o.GetAnnotations()[EnabledAnnotation] == "false"
}

func isBool(value string) bool { return value == "true" || value == "false" }

// UndoOptIn returns the commands that undo the opt-in of a Service or an Ingress. kind is the name of the kind for kubectl. An object
// that only its Namespace opts in is opted out.
func UndoOptIn(kind string, o metav1.Object) string {
	object := fmt.Sprintf("%s -n %s %s", kind, o.GetNamespace(), o.GetName())
	var commands []string
	if _, labelled := o.GetLabels()[OptInLabel]; labelled {
		commands = append(commands, fmt.Sprintf("kubectl label %s %s-", object, OptInLabel))
	}
	if _, annotated := o.GetAnnotations()[EnabledAnnotation]; annotated {
		commands = append(commands, fmt.Sprintf("kubectl annotate %s %s-", object, EnabledAnnotation))
	}
	if len(commands) == 0 {
		commands = append(commands, fmt.Sprintf("kubectl label %s %s=false", object, OptInLabel))
	}
	return strings.Join(commands, " && ")
}

// Warnings returns what the author of a write should know about the opt-in and the settings of a Service ("Service"), an Ingress or a
// Namespace, although the write is allowed. injected is set if a Service is injected. Its Namespace or an Ingress may have opted it
// in, which the Service itself does not show.
func Warnings(kind string, o metav1.Object, injected bool) []string {
	var warnings []string
	if _, ok := o.GetAnnotations()[OptInLabel]; ok {
		warnings = append(warnings, fmt.Sprintf("annotation %s does nothing: use label %s or annotation %s", OptInLabel, OptInLabel,
			EnabledAnnotation))
	}
	if _, ok := o.GetLabels()[EnabledAnnotation]; ok {
		warnings = append(warnings, fmt.Sprintf("label %s does nothing: use label %s or annotation %s", EnabledAnnotation, OptInLabel,
			EnabledAnnotation))
	}
	optedIn, err := OptedIn(o)
	if kind != "Namespace" && (optedIn || injected) {
		warnings = append(warnings, halfBusy(o.GetAnnotations())...)
	}
	if optedIn || err != nil || injected || OptedOut(o) {
		return warnings
	}
	idle := idleSettings(kind, o.GetAnnotations())
	if len(idle) == 0 {
		return warnings
	}
	warnings = append(warnings, fmt.Sprintf("%s: no effect unless %s: label it %s=true or annotate it %s=true",
		strings.Join(idle, ", "), whoHasToBeOptedIn(kind), OptInLabel, EnabledAnnotation))
	if _, err := ParseSettings(o.GetAnnotations()); err != nil {
		for _, err := range unjoin(err) {
			warnings = append(warnings, err.Error())
		}
	}
	return warnings
}

// idleSettings returns the settings that have no effect on an object that is not opted in. The settings of a Namespace are defaults
// for its Services, which may be opted in one by one; only InternalServicesAnnotation needs the Namespace's own opt-in.
func idleSettings(kind string, annotations map[string]string) []string {
	var idle []string
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if strings.HasPrefix(key, Prefix) && !internal(key) && (kind != "Namespace" || key == InternalServicesAnnotation) {
			idle = append(idle, key)
		}
	}
	return idle
}

func whoHasToBeOptedIn(kind string) string {
	switch kind {
	case "Service":
		return "the Service, its Namespace or an Ingress to it is opted in"
	case "Ingress":
		return "the Ingress itself is opted in (for a Service that is, set it on the Service)"
	default:
		return "the " + kind + " is opted in"
	}
}

// unjoin returns the errors that errors.Join has joined.
func unjoin(err error) []error {
	if joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
