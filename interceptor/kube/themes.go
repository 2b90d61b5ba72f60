// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"crypto/sha256"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
)

const (
	// themeName is the name of the ConfigMap with a namespace's theme. The interceptors may read no other ConfigMap; the API server can
	// enforce that only because the list and the watch ask for this one name.
	themeName = "scale-to-zero-waiting-page"
	// themeKey is the key of the template in the ConfigMap.
	themeKey = "page.html"
)

// watchThemes reports the themes of all namespaces to sink until ctx is done. Nothing waits for themes: a refused watch is retried,
// and meanwhile there are no themes.
//
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=list;watch
func (c *Cluster) watchThemes(ctx context.Context, sink interceptor.Sink) {
	maps := c.client.CoreV1().ConfigMaps(metav1.NamespaceAll)
	reflector := cache.NewReflectorWithOptions(
		cache.ToListWatcherWithWatchListSemantics(named(themeName, maps.List, maps.Watch), c.client), &corev1.ConfigMap{},
		&themes{sink: sink, log: c.options.Log, told: map[string][sha256.Size]byte{}}, cache.ReflectorOptions{Name: "waitingpages"})
	reflector.RunWithContext(ctx)
}

// named lists and watches the objects of one name. A role with resourceNames allows no other list or watch.
func named[L runtime.Object](
	name string, list func(context.Context, metav1.ListOptions) (L, error),
	watch func(context.Context, metav1.ListOptions) (apiwatch.Interface, error),
) *cache.ListWatch {
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return list(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			o.FieldSelector = selector
			return watch(ctx, o)
		},
	}
}

// themes is where the reflector puts ConfigMaps. Of each it keeps only a hash, which distinguishes a theme from its next version.
type themes struct {
	sink interceptor.Sink
	log  logr.Logger
	told map[string][sha256.Size]byte
}

// Add implements cache.ReflectorStore.
func (s *themes) Add(obj any) error { return s.Update(obj) }

// Update implements cache.ReflectorStore.
func (s *themes) Update(obj any) error {
	m, ok := obj.(*corev1.ConfigMap)
	if !ok || m.Name != themeName {
		return nil
	}
	source := m.Data[themeKey]
	sum := sha256.Sum256([]byte(source))
	if old, known := s.told[m.Namespace]; known && old == sum {
		return nil
	}
	if source == "" {
		s.log.Info("A waiting page's ConfigMap has no template", "namespace", m.Namespace, "name", themeName, "key", themeKey)
	}
	s.told[m.Namespace] = sum
	s.sink.SetTheme(m.Namespace, source)
	return nil
}

// Delete implements cache.ReflectorStore.
func (s *themes) Delete(obj any) error {
	if m, ok := obj.(*corev1.ConfigMap); ok && m.Name == themeName {
		s.forget(m.Namespace)
	}
	return nil
}

func (s *themes) forget(namespace string) {
	if _, known := s.told[namespace]; known {
		delete(s.told, namespace)
		s.sink.SetTheme(namespace, "")
	}
}

// Replace implements cache.ReflectorStore.
func (s *themes) Replace(list []any, _ string) error {
	present := map[string]bool{}
	for _, obj := range list {
		if m, ok := obj.(*corev1.ConfigMap); ok && m.Name == themeName {
			present[m.Namespace] = true
			_ = s.Update(m) // never fails
		}
	}
	for namespace := range s.told {
		if !present[namespace] {
			s.forget(namespace)
		}
	}
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *themes) Resync() error { return nil }
