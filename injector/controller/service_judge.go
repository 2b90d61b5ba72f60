// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// take is what of a Service's traffic is to be taken over.
type take int

const (
	takeNothing take = iota
	takeService
	takeIngresses // only what comes through opted-in Ingresses
)

// verdict is what is to become of a Service.
type verdict struct {
	take     take
	skip     injector.Skip // why nothing is taken, if it is opted in
	general  bool          // only its namespace opts it in, with all the others
	retry    time.Duration // when to look again, if the reason goes away without any watch saying so
	settings injector.Settings
	workload injector.Workload
	object   client.Object // the workload as an object, for events
	taken    bool          // whether it is taken over already

	namespace *corev1.Namespace
}

// judge decides about the Service. Its own label counts first, then its namespace's, then those of its Ingresses.
func (r *ServiceReconciler) judge(ctx context.Context, service *corev1.Service, own owned, ingresses backing) (verdict, error) {
	var v verdict
	var err error
	v.namespace = &corev1.Namespace{}
	if err := r.client.Get(ctx, types.NamespacedName{Name: service.Namespace}, v.namespace); err != nil {
		return v, fmt.Errorf("getting namespace %s: %w", service.Namespace, err)
	}
	around, err := r.surroundings(ctx, service, v.namespace, ingresses)
	if err != nil {
		return v, err
	}
	v.take, v.skip = optIn(service, v.namespace, ingresses, around)
	v.general = v.take != takeIngresses && generallyOptedIn(service, v.namespace)
	if v.take == takeNothing {
		return v, nil
	}
	if v.retry, err = r.restoring(ctx); err != nil || v.retry > 0 {
		v.take, v.skip = takeNothing, ""
		return v, err
	}
	layers := []map[string]string{v.namespace.Annotations, service.Annotations}
	if v.take == takeIngresses {
		for _, i := range ingresses.optedIn {
			layers = append(layers, i.Annotations)
		}
	}
	if v.settings, err = injector.ParseSettings(injector.Layer(layers...)); err == nil {
		err = injector.CheckPorts(service)
	}
	if err != nil {
		v.skip = injector.Skip(err.Error()) // it was written while admission was away
	} else {
		v.skip = injector.JudgeService(service, r.Namespace, v.take == takeIngresses, ingresses.routingTo(service.Name))
	}
	if v.skip == "" {
		if err := r.judgeWorkload(ctx, service, own, &v); err != nil {
			return v, err
		}
	}
	if v.skip == "" && v.take != takeNothing {
		if v.skip = own.entrance(v.take).blocked(); v.skip != "" {
			v.retry = patience // it is proven anew when it has been given back
		}
	}
	if v.skip != "" {
		v.take = takeNothing
	}
	return v, nil
}

// optIn reads the labels and annotations. around counts only where the namespace is opted in. Of a Service that cannot be
// taken over itself, what comes through opted-in Ingresses can.
func optIn(service *corev1.Service, namespace *corev1.Namespace, ingresses backing, around injector.Surroundings) (take, injector.Skip) {
	own, err := injector.OptedIn(service)
	if err != nil {
		return takeNothing, injector.Skip(err.Error())
	}
	taken, skip := takeNothing, injector.Skip("")
	if own {
		taken = takeService
	} else if !injector.OptedOut(service) {
		all, err := injector.OptedIn(namespace)
		switch {
		case err != nil:
			skip = injector.Skip("namespace " + namespace.Name + ": " + err.Error())
		case all:
			if skip = injector.JudgeNamespaced(service, around); skip == "" {
				taken = takeService
			}
		}
	}
	if len(ingresses.optedIn) > 0 && (taken == takeNothing || injector.OnlyByIngress(service)) {
		return takeIngresses, ""
	}
	return taken, skip
}

// judgeWorkload finds what is to be scaled, and whether it may be.
func (r *ServiceReconciler) judgeWorkload(ctx context.Context, service *corev1.Service, own owned, v *verdict) error {
	candidates, err := r.workloads.list(ctx, service.Namespace)
	if err != nil {
		return err
	}
	if kind, name, _ := injector.ParseWorkload(v.settings.Workload); kind.Group != "" {
		custom, skip, err := r.workloads.custom(ctx, service.Namespace, kind, name)
		if kept := own.workload(v.take); err == nil && r.keep(ctx, service, custom, kept, v) {
			return nil
		}
		if err != nil || skip != "" {
			v.skip, v.retry = skip, kindRetry
			return err
		}
		if custom.object != nil {
			candidates = append(candidates, custom.Workload)
		}
	}
	if v.workload, v.skip = injector.FindWorkload(service, v.settings, candidates); v.skip != "" {
		return nil
	}
	var hpas autoscalingv2.HorizontalPodAutoscalerList
	if err := r.client.List(ctx, &hpas, client.InNamespace(service.Namespace)); err != nil {
		return fmt.Errorf("listing who scales %s: %w", v.workload.Ref(), err)
	}
	var scaledObjects keda.ScaledObjectList
	if r.keda.Load() {
		if err := r.client.List(ctx, &scaledObjects, client.InNamespace(service.Namespace)); err != nil {
			return fmt.Errorf("listing who scales %s: %w", v.workload.Ref(), err)
		}
	}
	if v.skip = injector.JudgeWorkload(v.workload, hpas.Items, scaledObjects.Items); v.skip != "" {
		return nil
	}
	if v.skip, err = r.nameTaken(ctx, service, *v); err != nil || v.skip != "" {
		return err
	}
	found, err := r.workloads.get(ctx, service.Namespace, v.workload.Ref().String())
	if err != nil {
		return err
	}
	if found.object == nil {
		v.take = takeNothing // it has just gone; that comes back here
	}
	v.object = found.object
	return nil
}

// keep says whether the Service is to stay taken over as it is because its workload, which may be asleep, may not be read
// any more. To give it back nobody could wake that.
func (r *ServiceReconciler) keep(ctx context.Context, service *corev1.Service, w workload, kept api.Workload, v *verdict) bool {
	if w.forbidden == "" {
		r.stories.ended(client.ObjectKeyFromObject(service), reasonForbidden)
		return false
	}
	if kept.String() != v.settings.Workload {
		return false
	}
	v.workload = injector.Workload{
		ObjectMeta: metav1.ObjectMeta{Namespace: service.Namespace, Name: kept.Name, UID: types.UID(kept.UID)},
		APIVersion: kept.APIVersion, Kind: kept.Kind, Resource: kept.Resource,
	}
	v.retry = kindRetry
	r.stories.tellOnce(ctx, corev1.EventTypeWarning, reasonForbidden, "It stays taken over as it is: "+string(w.forbidden), service)
	return true
}

// nameTaken says whether somebody else's Service has a name that one of ours would have.
func (r *ServiceReconciler) nameTaken(ctx context.Context, service *corev1.Service, v verdict) (injector.Skip, error) {
	names := []string{injector.DirectServiceName(service.Name)}
	if v.take == takeIngresses {
		names = append(names, injector.AliasServiceName(service.Name))
	}
	for _, name := range names {
		var other corev1.Service
		err := r.client.Get(ctx, types.NamespacedName{Namespace: service.Namespace, Name: name}, &other)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return "", fmt.Errorf("getting service %s/%s: %w", service.Namespace, name, err)
		case other.Labels[injector.ManagedByLabel] != injector.ManagedBy:
			return injector.Skip(fmt.Sprintf("a Service of ours would be named %s, and there is one of that name; rename or delete that one", name)), nil
		}
	}
	return "", nil
}
