package controller

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// retry is how soon a step that waits for somebody else (an interceptor that is to listen, Kubernetes that is to list
// pods) is looked at again, where no watch says so.
const retry = 100 * time.Millisecond

// ServiceReconciler takes opted-in Services over and gives them back.
type ServiceReconciler struct {
	Options

	client client.Client
	// live reads from the API server: the cache leaves out what we look at once in a Service's life.
	live    client.Reader
	stories *storyteller
	keda    *atomic.Bool // whether KEDA's API is there

	portsOnce sync.Mutex // protects ports, and its first filling
	ports     *injector.Ports
}

// verdict is what is to become of a Service.
type verdict struct {
	take     bool
	skip     injector.Skip // why not, if it is opted in and not taken
	retry    time.Duration // when to look again, if the reason goes away without any watch saying so
	settings injector.Settings
	workload injector.Workload
	object   client.Object // the workload as an object, for events; may be nil
}

// owned is what there is of ours around a Service.
type owned struct {
	slices []discoveryv1.EndpointSlice // its route slices
	routes api.Routes                  // what they say; zero if they say nothing that can be read
	direct *corev1.Service             // nil if there is none
}

func (o owned) empty() bool { return len(o.slices) == 0 && o.direct == nil }

// Reconcile brings one Service to where its label wants it.
func (r *ServiceReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	service := &corev1.Service{}
	if err := r.client.Get(ctx, req.NamespacedName, service); apierrors.IsNotFound(err) {
		r.freePorts(req.NamespacedName)
		r.stories.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("getting service %s: %w", req.NamespacedName, err)
	}
	if !service.DeletionTimestamp.IsZero() || service.Labels[injector.ManagedByLabel] == injector.ManagedBy {
		return ctrl.Result{}, nil
	}
	own, err := r.owned(ctx, service)
	if err != nil {
		return ctrl.Result{}, err
	}
	v, err := r.judge(ctx, service)
	if err != nil {
		return ctrl.Result{}, err
	}
	if v.take {
		return r.inject(ctx, service, own, v)
	}
	result, err := r.withdraw(ctx, service, own, v)
	if result.IsZero() {
		result.RequeueAfter = v.retry
	}
	return result, err
}

// owned collects what is ours around the Service. What is left of a Service of the same name that was deleted before is
// deleted: Kubernetes would do it too, in its own time.
func (r *ServiceReconciler) owned(ctx context.Context, service *corev1.Service) (owned, error) {
	var own owned
	var list discoveryv1.EndpointSliceList
	if err := r.client.List(ctx, &list, client.InNamespace(service.Namespace), client.MatchingLabels{
		api.RoleLabel: api.RoleRoute, discoveryv1.LabelServiceName: service.Name,
	}); err != nil {
		return own, fmt.Errorf("listing route slices of %s: %w", client.ObjectKeyFromObject(service), err)
	}
	for _, s := range list.Items {
		if !ownedBy(&s, service.UID) {
			if _, err := r.delete(ctx, &s); err != nil {
				return own, err
			}
			continue
		}
		own.slices = append(own.slices, s)
		if routes, err := api.DecodeRoutes(s.Annotations[api.RoutesAnnotation]); err == nil {
			own.routes = routes
		} else {
			log.FromContext(ctx).Info("Rewriting a route slice", "slice", s.Name, "reason", err.Error())
		}
	}
	direct := &corev1.Service{}
	err := r.client.Get(ctx, types.NamespacedName{Namespace: service.Namespace, Name: injector.DirectServiceName(service.Name)}, direct)
	switch {
	case apierrors.IsNotFound(err) || err == nil && direct.Labels[injector.ServiceLabel] != service.Name:
	case err != nil:
		return own, fmt.Errorf("getting direct service of %s: %w", client.ObjectKeyFromObject(service), err)
	case !ownedBy(direct, service.UID):
		_, err := r.delete(ctx, direct)
		return own, err
	default:
		own.direct = direct
	}
	return own, nil
}

func ownedBy(o client.Object, uid types.UID) bool {
	for _, ref := range o.GetOwnerReferences() {
		if ref.UID == uid {
			return true
		}
	}
	return false
}

// judge decides about the Service.
func (r *ServiceReconciler) judge(ctx context.Context, service *corev1.Service) (verdict, error) {
	var v verdict
	optedIn, err := injector.OptedIn(service.Labels)
	if err != nil {
		v.skip = injector.Skip(err.Error()) // it was written while admission was away
	}
	if !optedIn {
		return v, nil
	}
	if v.retry, err = r.restoring(ctx); err != nil || v.retry > 0 {
		return v, err
	}
	if v.settings, err = injector.ParseSettings(service.Annotations); err != nil {
		v.skip = injector.Skip(err.Error())
		return v, nil
	}
	if v.skip = injector.JudgeService(service, r.Namespace); v.skip != "" {
		return v, nil
	}
	if !r.keda.Load() {
		v.skip, v.retry = "KEDA is not installed: there is no API keda.sh/v1alpha1 ScaledObject; it is taken over when there is", kedaRetry
		return v, nil
	}
	return v, r.judgeWorkload(ctx, service, &v)
}

func (r *ServiceReconciler) judgeWorkload(ctx context.Context, service *corev1.Service, v *verdict) error {
	workloads, err := listWorkloads(ctx, r.client, service.Namespace)
	if err != nil {
		return err
	}
	if v.workload, v.skip = injector.FindWorkload(service, v.settings, workloads); v.skip != "" {
		return nil
	}
	var hpas autoscalingv2.HorizontalPodAutoscalerList
	var scaledObjects keda.ScaledObjectList
	for _, list := range []client.ObjectList{&hpas, &scaledObjects} {
		if err := r.client.List(ctx, list, client.InNamespace(service.Namespace)); err != nil {
			return fmt.Errorf("listing who scales %s: %w", v.workload.Ref(), err)
		}
	}
	if v.skip = injector.JudgeWorkload(v.workload, hpas.Items, scaledObjects.Items); v.skip != "" {
		return nil
	}
	var direct corev1.Service
	err = r.client.Get(ctx, types.NamespacedName{Namespace: service.Namespace, Name: injector.DirectServiceName(service.Name)}, &direct)
	if err == nil && direct.Labels[injector.ManagedByLabel] != injector.ManagedBy {
		v.skip = injector.Skip(fmt.Sprintf("its direct Service would be named %s, and there is a Service of that name; rename or delete that one", direct.Name))
		return nil
	}
	if v.object, _, err = getWorkload(ctx, r.client, client.ObjectKey{Namespace: v.workload.Namespace, Name: v.workload.Name}, v.workload.Kind); err != nil {
		return err
	}
	v.take = v.object != nil
	return nil
}

// restoring says for how long yet every app is to be given back.
func (r *ServiceReconciler) restoring(ctx context.Context) (time.Duration, error) {
	if r.Deployment == "" {
		return 0, nil
	}
	var own appsv1.Deployment
	err := r.client.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Deployment}, &own)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("getting own deployment: %w", err)
	}
	until, err := time.Parse(time.RFC3339, own.Annotations[injector.RestoringAnnotation])
	if err != nil {
		return 0, nil //nolint:nilerr // there is none, or none of ours
	}
	return max(0, until.Sub(r.Now())), nil
}

// delete deletes the very object that was read, and says whether it was still there.
func (r *ServiceReconciler) delete(ctx context.Context, o client.Object) (bool, error) {
	uid := o.GetUID()
	err := r.client.Delete(ctx, o, client.Preconditions{UID: &uid})
	if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
		return false, fmt.Errorf("deleting %s: %w", client.ObjectKeyFromObject(o), err)
	}
	return err == nil, nil
}
