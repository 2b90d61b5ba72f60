// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package injector

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// AdmitIngress changes an Ingress during a write as admission must: it replaces the backends named in AliasesAnnotation by their
// alias Service. It changes only that annotation and the names of backend Services, including the names in annotations that renameIn
// knows. old is the Ingress in the API server, nil on create. byController is set if our controller is the writer; only the
// controller may change AliasesAnnotation.
//
// AdmitIngress first restores the author's names and then replaces them again, so a write may contain either name. An Ingress that is
// no longer opted in keeps its aliases until the controller removes them: the Service's own pods may be asleep.
//
// An error denies the write, and the user has to fix it. As in Admit, writes of our controller are never denied. Applying
// AdmitIngress twice equals applying it once.
func AdmitIngress(ingress, old *networkingv1.Ingress, byController bool) error {
	optedIn, err := OptedIn(ingress)
	if err != nil && !byController {
		return err
	}
	if optedIn && !byController {
		if _, err := ParseSettings(ingress.Annotations); err != nil {
			return err
		}
		if err := checkNoNamespaceSetting(ingress.Annotations); err != nil {
			return err
		}
	}
	aliases, had := Aliases(ingress), map[string]string(nil)
	author := authorsNames(aliases)
	if old == nil {
		aliases = nil // this may be a copy of another Ingress, and the aliases belong to that one
	} else {
		had = Aliases(old)
		maps.Copy(author, authorsNames(had))
		if !byController {
			aliases = had
		}
	}
	exchange(ingress, func(name string) string {
		if original, ok := author[name]; ok {
			name = original
		}
		if alias, ok := aliases[name]; ok {
			name = alias
		}
		return name
	})
	setAliases(ingress, aliases)
	return nil
}

// exchange renames the backend Services of an Ingress, wherever it names them.
func exchange(ingress *networkingv1.Ingress, rename func(string) string) {
	for _, name := range backendNames(ingress) {
		*name = rename(*name)
	}
	for key, value := range ingress.Annotations {
		ingress.Annotations[key] = renameIn(key, value, rename)
	}
}

// IngressWarnings returns Warnings for the author of an Ingress, and one about annotations that seem to name a backend but are not
// rewritten with it.
func IngressWarnings(ingress *networkingv1.Ingress) []string {
	warnings := Warnings("Ingress", ingress, false)
	if optedIn, err := OptedIn(ingress); err != nil || !optedIn {
		return warnings
	}
	author, _ := Backends(ingress)
	for _, service := range author {
		for _, key := range NamedElsewhere(ingress, service) {
			warnings = append(warnings, fmt.Sprintf("annotation %s seems to name backend Service %s: it is left as it is when the backend "+
				"becomes %s",
				key, service, AliasServiceName(service)))
		}
	}
	return warnings
}

// Aliases reads AliasesAnnotation. It maps a Service's name to that of its alias Service.
func Aliases(ingress *networkingv1.Ingress) map[string]string {
	aliases := map[string]string{}
	for pair := range strings.SplitSeq(ingress.Annotations[AliasesAnnotation], ",") {
		if service, alias, ok := strings.Cut(pair, "="); ok && service != "" && alias != "" {
			aliases[service] = alias
		}
	}
	return aliases
}

// EncodeAliases returns the value of AliasesAnnotation for aliases.
func EncodeAliases(aliases map[string]string) string {
	pairs := make([]string, 0, len(aliases))
	for _, service := range slices.Sorted(maps.Keys(aliases)) {
		pairs = append(pairs, service+"="+aliases[service])
	}
	return strings.Join(pairs, ",")
}

func setAliases(ingress *networkingv1.Ingress, aliases map[string]string) {
	if len(aliases) == 0 {
		delete(ingress.Annotations, AliasesAnnotation)
		return
	}
	if ingress.Annotations == nil {
		ingress.Annotations = map[string]string{}
	}
	ingress.Annotations[AliasesAnnotation] = EncodeAliases(aliases)
}

// authorsNames inverts Aliases: it maps an alias Service's name to that of the Service.
func authorsNames(aliases map[string]string) map[string]string {
	author := map[string]string{}
	for service, alias := range aliases {
		author[alias] = service
	}
	return author
}

// Backends returns the names of the Services to which an Ingress sends traffic, without duplicates: the names that its author wrote,
// and the present names. They differ where an alias has replaced a name.
func Backends(ingress *networkingv1.Ingress) (author, now []string) {
	originals := authorsNames(Aliases(ingress))
	now = actionServices(ingress)
	for _, name := range backendNames(ingress) {
		now = append(now, *name)
	}
	for _, name := range now {
		if original, ok := originals[name]; ok {
			author = append(author, original)
		} else {
			author = append(author, name)
		}
	}
	slices.Sort(author)
	slices.Sort(now)
	return slices.Compact(author), slices.Compact(now)
}

// backendNames returns a pointer to every place where an Ingress names a Service.
func backendNames(ingress *networkingv1.Ingress) []*string {
	var names []*string
	add := func(b *networkingv1.IngressBackend) {
		if b != nil && b.Service != nil {
			names = append(names, &b.Service.Name)
		}
	}
	add(ingress.Spec.DefaultBackend)
	for i := range ingress.Spec.Rules {
		if http := ingress.Spec.Rules[i].HTTP; http != nil {
			for j := range http.Paths {
				add(&http.Paths[j].Backend)
			}
		}
	}
	return names
}

// refersTo reports whether an Ingress sends traffic to a port of a Service. service is the name that the author wrote.
func refersTo(ingress *networkingv1.Ingress, service, portName string, port int32) bool {
	originals := authorsNames(Aliases(ingress))
	refers := func(b *networkingv1.IngressBackend) bool {
		if b == nil || b.Service == nil || b.Service.Name != service && originals[b.Service.Name] != service {
			return false
		}
		return b.Service.Port.Number == port || b.Service.Port.Name != "" && b.Service.Port.Name == portName
	}
	action := func(name string) bool { return name == service || originals[name] == service }
	if refers(ingress.Spec.DefaultBackend) || slices.ContainsFunc(actionServices(ingress), action) {
		return true
	}
	return slices.ContainsFunc(ingress.Spec.Rules, func(r networkingv1.IngressRule) bool {
		return r.HTTP != nil && slices.ContainsFunc(r.HTTP.Paths, func(p networkingv1.HTTPIngressPath) bool { return refers(&p.Backend) })
	})
}
