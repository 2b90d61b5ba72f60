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

// AdmitIngress does to an Ingress that is being written what admission must do: the backends named in AliasesAnnotation lead
// to their alias Service. It changes nothing but that annotation and the names of backend Services, also in the annotations
// that renameIn knows. old is what the API server has now, nil on create. byController says that the write is our
// controller's own, which alone may change the annotation.
//
// The author's names are restored first and then replaced again, so a write may come with either. An Ingress that is no
// longer opted in keeps its aliases until the controller removes them: the Service's own pods may be asleep.
//
// An error denies the write, and is the user's to fix; as with Admit, our controller's writes are never denied. Applying it
// twice equals applying it once.
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
		aliases = nil // this may be a copy of another Ingress, whose aliases are not its own
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

// exchange renames the backend Services of an Ingress wherever it names them.
func exchange(ingress *networkingv1.Ingress, rename func(string) string) {
	for _, name := range backendNames(ingress) {
		*name = rename(*name)
	}
	for key, value := range ingress.Annotations {
		ingress.Annotations[key] = renameIn(key, value, rename)
	}
}

// IngressWarnings are for the author of an Ingress: those of Warnings, and which of its annotations seem to name a backend and
// are not rewritten with it.
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

// Aliases reads AliasesAnnotation: the alias Service's name by the Service's.
func Aliases(ingress *networkingv1.Ingress) map[string]string {
	aliases := map[string]string{}
	for pair := range strings.SplitSeq(ingress.Annotations[AliasesAnnotation], ",") {
		if service, alias, ok := strings.Cut(pair, "="); ok && service != "" && alias != "" {
			aliases[service] = alias
		}
	}
	return aliases
}

// EncodeAliases is the value of AliasesAnnotation for aliases.
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

// authorsNames are the Services by their aliases: Aliases the other way round.
func authorsNames(aliases map[string]string) map[string]string {
	author := map[string]string{}
	for service, alias := range aliases {
		author[alias] = service
	}
	return author
}

// Backends returns the names of the Services that an Ingress sends traffic to, each once: those that its author wrote, and
// those that it has now. They differ where a name was replaced by its alias.
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

// backendNames points to every place where an Ingress names a Service.
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

// refersTo says whether an Ingress sends traffic to a port of a Service, by the Service's name as its author wrote it.
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
