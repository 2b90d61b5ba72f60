package kube

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// Options configure a Cluster.
type Options struct {
	// Namespace is the interceptor's own: its peers are there.
	Namespace string
	// PodName and PodIP are the interceptor's own, by which it knows itself among its peers and in route slices.
	PodName, PodIP string
	// Service is the headless Service of the interceptors. Default any with the role's label.
	Service string
	Log     logr.Logger
}

// Cluster is an API server.
type Cluster struct {
	client  kubernetes.Interface
	options Options
	events  *recorder
}

// New returns the Cluster behind config.
func New(config *rest.Config, o Options) (*Cluster, error) {
	// A wake may need a few calls at once and must not queue behind those for other apps.
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 100, 200
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return NewForClient(client, o), nil
}

// NewForClient returns the Cluster behind client.
func NewForClient(client kubernetes.Interface, o Options) *Cluster {
	return &Cluster{client: client, options: o, events: newRecorder(client, o)}
}

// Watch implements interceptor.Cluster. Events are written for as long as it runs.
func (c *Cluster) Watch(ctx context.Context, sink interceptor.Sink) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		c.events.run(ctx)
		return nil
	})
	group.Go(func() error {
		c.watch(ctx, sink)
		return nil
	})
	return group.Wait()
}

// scaleGetter reads the scale subresource of one kind of workload.
type scaleGetter interface {
	GetScale(ctx context.Context, name string, o metav1.GetOptions) (*autoscalingv1.Scale, error)
}

var errKind = errors.New("only apps/v1 Deployment and StatefulSet can be scaled")

// Replicas is the number of replicas that the workload is to have.
func (c *Cluster) Replicas(ctx context.Context, namespace string, w api.Workload) (int32, error) {
	var of scaleGetter
	switch w.Kind {
	case "Deployment":
		of = c.client.AppsV1().Deployments(namespace)
	case "StatefulSet":
		of = c.client.AppsV1().StatefulSets(namespace)
	default:
		return 0, fmt.Errorf("getting scale of %s in %s: %w", w, namespace, errKind)
	}
	scale, err := of.GetScale(ctx, w.Name, metav1.GetOptions{})
	if err != nil {
		return 0, fmt.Errorf("getting scale of %s in %s: %w", w, namespace, err)
	}
	return scale.Spec.Replicas, nil
}

// Scale implements scaler.Workloads. That somebody else scales at the same moment is harmless: it is patched from 0 to
// 1 only.
func (c *Cluster) Scale(ctx context.Context, namespace string, w api.Workload) (bool, error) {
	replicas, err := c.Replicas(ctx, namespace, w)
	if err != nil || replicas > 0 {
		return false, err
	}
	patch := []byte(`{"spec":{"replicas":1}}`)
	switch w.Kind {
	case "Deployment":
		_, err = c.client.AppsV1().Deployments(namespace).Patch(ctx, w.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	case "StatefulSet":
		_, err = c.client.AppsV1().StatefulSets(namespace).Patch(ctx, w.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	}
	if err != nil {
		return false, fmt.Errorf("scaling %s in %s to 1: %w", w, namespace, err)
	}
	return true, nil
}
