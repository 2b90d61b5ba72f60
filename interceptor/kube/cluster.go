// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/scale-to-zero/scale-to-zero/interceptor"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api/mtls"
	"github.com/scale-to-zero/scale-to-zero/interceptor/scaler"
)

// fieldManager is the same as the controllers' field manager. It shows them who has scaled a workload.
const fieldManager = "scale-to-zero"

// Options configure a Cluster.
type Options struct {
	// Namespace is the interceptor's own namespace. Its peers are there.
	Namespace string
	// PodName and PodIP are the interceptor's own. By them it finds itself among its peers and in route slices.
	PodName, PodIP string
	// Service is the headless Service of the interceptors. Default any Service with the role's label.
	Service string
	// Reserved are the ports that the interceptor itself listens on. No route gets one.
	Reserved []int32
	// MaxRoutesPerNamespace is how many routes the Services of a namespace may have together; 0 for no limit. The injector has a lower
	// limit, and reports it. This one bounds what slices that others have made cost.
	MaxRoutesPerNamespace int
	// Secret has the interceptors' certificate, for TLS. With a nil TLS it is not read.
	Secret string
	TLS    *mtls.Store
	Log    logr.Logger
}

// Cluster is a Kubernetes cluster, reached through its API server.
type Cluster struct {
	client  kubernetes.Interface
	dynamic dynamic.Interface // for kinds that are not built in
	options Options
	events  *recorder
}

// New returns the Cluster that config points to.
func New(config *rest.Config, o Options) (*Cluster, error) {
	// A wake may need several calls at once, and must not queue behind calls for other apps.
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 100, 200
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	custom, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for custom resources: %w", err)
	}
	return NewForClients(client, custom, o), nil
}

// NewForClients returns the Cluster that client and custom talk to. custom is for kinds that are not built in.
func NewForClients(client kubernetes.Interface, custom dynamic.Interface, o Options) *Cluster {
	return &Cluster{client: client, dynamic: custom, options: o, events: newRecorder(client, o)}
}

// Watch implements interceptor.Cluster. Events are written while it runs.
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
	group.Go(func() error {
		c.watchThemes(ctx, sink)
		return nil
	})
	if c.options.TLS != nil {
		group.Go(func() error {
			c.watchCertificate(ctx)
			return nil
		})
	}
	return group.Wait()
}

var errKind = errors.New("only Deployments, StatefulSets and custom resources with a scale subresource can be scaled")

// custom returns the client for a workload whose kind is not built in.
func (c *Cluster) custom(namespace string, w api.Workload) (dynamic.ResourceInterface, error) {
	version, err := schema.ParseGroupVersion(w.APIVersion)
	if err != nil || w.Resource == "" {
		return nil, errors.Join(errKind, err)
	}
	return c.dynamic.Resource(version.WithResource(w.Resource)).Namespace(namespace), nil
}

// Replicas implements scaler.WorkloadScaler.
func (c *Cluster) Replicas(ctx context.Context, namespace string, w api.Workload) (int32, error) {
	replicas, err := c.replicas(ctx, namespace, w)
	if err != nil {
		return 0, fmt.Errorf("getting scale of %s in %s: %w", w, namespace, err)
	}
	return replicas, nil
}

func (c *Cluster) replicas(ctx context.Context, namespace string, w api.Workload) (int32, error) {
	var scale *autoscalingv1.Scale
	var err error
	switch w.String() {
	case "Deployment/" + w.Name:
		scale, err = c.client.AppsV1().Deployments(namespace).GetScale(ctx, w.Name, metav1.GetOptions{})
	case "StatefulSet/" + w.Name:
		scale, err = c.client.AppsV1().StatefulSets(namespace).GetScale(ctx, w.Name, metav1.GetOptions{})
	default:
		custom, err := c.custom(namespace, w)
		if err != nil {
			return 0, err
		}
		object, err := custom.Get(ctx, w.Name, metav1.GetOptions{}, "scale")
		if err != nil {
			return 0, err
		}
		replicas, _, err := unstructured.NestedInt64(object.Object, "spec", "replicas")
		return int32(replicas), err //nolint:gosec // the API server has it as an int32
	}
	if err != nil {
		return 0, err
	}
	return scale.Spec.Replicas, nil
}

// Scale implements scaler.WorkloadScaler. If another client scales at the same moment, that does no harm: both patch only from 0, and the
// chart's policy refuses an interceptor that comes too late.
//
// The rights come from Roles in the apps' namespaces, by which the controllers let the interceptors get and patch the scale of workloads to
// which routes lead.
func (c *Cluster) Scale(ctx context.Context, namespace string, w api.Workload, to int32) (bool, error) {
	replicas, err := c.Replicas(ctx, namespace, w)
	if err != nil || replicas > 0 {
		return false, refusal(err)
	}
	patch, o := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, to), metav1.PatchOptions{FieldManager: fieldManager}
	switch w.String() {
	case "Deployment/" + w.Name:
		_, err = c.client.AppsV1().Deployments(namespace).Patch(ctx, w.Name, types.MergePatchType, patch, o, "scale")
	case "StatefulSet/" + w.Name:
		_, err = c.client.AppsV1().StatefulSets(namespace).Patch(ctx, w.Name, types.MergePatchType, patch, o, "scale")
	default:
		var custom dynamic.ResourceInterface
		if custom, err = c.custom(namespace, w); err == nil {
			_, err = custom.Patch(ctx, w.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager}, "scale")
		}
	}
	if err == nil {
		return true, nil
	}
	err = refusal(fmt.Errorf("scaling %s in %s to %d: %w", w, namespace, to, err))
	if refused := new(scaler.RefusedError); errors.As(err, &refused) {
		if now, failed := c.Replicas(ctx, namespace, w); failed == nil && now > 0 {
			return false, nil // somebody else has been faster
		}
	}
	return false, err
}

// refusal marks an error that says that the API server does not allow something.
func refusal(err error) error {
	if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		// These are the words of the API server's authorizer. Quotas and policies have others.
		return &scaler.RefusedError{Err: err, NoRight: strings.Contains(err.Error(), "is forbidden: User ")}
	}
	return err
}
