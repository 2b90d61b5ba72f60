// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// kedaInterval is how often it is looked whether KEDA's API has come or gone.
const kedaInterval = 5 * time.Second

// kedaWatch notices when KEDA is installed or removed: while the API server knows ScaledObjects, KEDA scales, and both
// controllers watch them; while it does not, we scale.
type kedaWatch struct {
	mgr       ctrl.Manager
	log       logr.Logger
	discovery discovery.DiscoveryInterface
	available *atomic.Bool
	services  *ServiceReconciler

	serviceController, workloadController controller.Controller
}

// Start implements manager.Runnable. Workloads that were scaled by us meanwhile come back by themselves.
func (k *kedaWatch) Start(ctx context.Context) error {
	tick := time.NewTicker(kedaInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := k.look(ctx); err != nil && ctx.Err() == nil {
			k.log.Error(err, "Looking for KEDA's API")
		}
	}
}

// look finds out whether the API server knows ScaledObjects, and acts on a change.
func (k *kedaWatch) look(ctx context.Context) error {
	_, err := k.discovery.ServerResourcesForGroupVersion(keda.GroupVersion().String())
	switch installed := err == nil; {
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("looking for KEDA's API: %w", err)
	case installed && !k.available.Load():
		kind := keda.GroupVersion().WithKind("ScaledObject")
		if _, err := k.mgr.GetRESTMapper().RESTMapping(kind.GroupKind(), kind.Version); meta.IsNoMatchError(err) {
			return nil // it has only just come, and not everything knows yet
		} else if err != nil {
			return fmt.Errorf("looking for KEDA's kinds: %w", err)
		}
		if err := k.watch(); err != nil {
			return err
		}
		k.available.Store(true)
		k.log.Info("KEDA is installed: it scales")
	case !installed && k.available.Swap(false):
		k.log.Info("KEDA is not installed any more: scaling without it")
		return k.mgr.GetCache().RemoveInformer(ctx, &keda.ScaledObject{})
	}
	return nil
}

// watch makes both controllers watch ScaledObjects.
func (k *kedaWatch) watch() error {
	byService := handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, so *keda.ScaledObject) []reconcile.Request {
		return k.services.neighbours(ctx, so)
	})
	byTarget := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, so *keda.ScaledObject) []reconcile.Request {
		target := so.Spec.ScaleTargetRef
		return []reconcile.Request{{NamespacedName: key(so.Namespace, api.Workload{APIVersion: target.APIVersion, Kind: target.TargetKind(), Name: target.Name})}}
	})
	generation := predicate.TypedGenerationChangedPredicate[*keda.ScaledObject]{}
	return errors.Join(
		k.serviceController.Watch(source.Kind(k.mgr.GetCache(), &keda.ScaledObject{}, byService, generation)),
		k.workloadController.Watch(source.Kind(k.mgr.GetCache(), &keda.ScaledObject{}, byTarget)),
	)
}
