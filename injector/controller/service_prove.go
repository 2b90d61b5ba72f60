// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/scale-to-zero/scale-to-zero/injector"
	"github.com/scale-to-zero/scale-to-zero/injector/keda"
	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/reach"
)

const (
	// reachTimeout bounds one question to one interceptor, which answers within 2 s unless a Service has very many ports.
	reachTimeout = 10 * time.Second
	// blockedMax is the longest between two looks at a way that is blocked: no watch says when a policy lets us in.
	blockedMax = time.Minute
	// blockedFor is how long the way to the first pods of an app has to be blocked until the app is given back. The network
	// of a pod that has just come may not be ready in all places.
	blockedFor = 10 * time.Second
)

// Reach asks the interceptor at an IP address to connect to the ready pods of a Service. It knows the Service by front,
// the Service whose route slices there are. The answer is nil if it is of a version that cannot be asked.
type Reach func(ctx context.Context, interceptor string, front types.NamespacedName) ([]injector.PortReach, error)

// offer is what the route slices are to publish, and what that lacks before traffic may be turned to it.
type offer struct {
	injector.Published

	missing corev1.IPFamily // in which no interceptor is published
	lacks   injector.Skip   // empty: nothing
	longest time.Duration   // between two looks at what is lacking
	// blocked says why the interceptors do not reach the pods of an app that is taken over and was asleep when it was.
	blocked injector.Skip
	// again is when to look again for that, if it is not known yet.
	again time.Duration
}

// offer finds out which interceptors can take the entrance's traffic, and proves their way to the pods before they are
// published: from then on they get a part of it. What was asleep is proven when its first pods are ready.
func (r *ServiceReconciler) offer(ctx context.Context, service *corev1.Service, e *entrance, routes api.Routes, ready []injector.Interceptor, turned bool, v verdict) (offer, error) {
	interceptors := injector.OfFamilies(ready, e.front.Spec.IPFamilies)
	o := offer{Published: r.published(ctx, routes, interceptors, *e), longest: patience}
	o.missing = injector.MissingFamily(o.Interceptors, e.front.Spec.IPFamilies)
	// To turn the traffic would take the pods of a missing IP family away; once it is turned, the others go on.
	if len(o.Ports) < len(routes.Ports) || len(o.Interceptors) == 0 || o.missing != "" && !turned {
		o.lacks = lacking(routes, ready, e.front, o.missing)
		if !turned && !e.alias {
			o.Published = injector.Published{} // until all of its clients can be served, none of them is
		}
		return o, nil
	}
	inUse := turned || e.publishes()
	if inUse && e.unproven == "" {
		return o, nil
	}
	proof, err := r.prove(ctx, service, *e, o.Interceptors)
	if err != nil {
		return o, err
	}
	switch {
	case proof.Nothing:
		e.unproven = injector.UnprovenYet
	case proof.Lacks == "":
		e.unproven = ""
	}
	if inUse {
		if proof.Blocked {
			o.blocked = proof.Lacks
		} else if proof.Lacks != "" {
			o.again = patience // no watch says when it can be proven
		}
		return o, nil
	}
	o.lacks = r.blocked.latest(client.ObjectKeyFromObject(service), proof)
	if o.lacks != "" {
		o.longest = blockedMax
	}
	if o.lacks == "" {
		o.lacks, err = r.podsListed(ctx, service, v.workload)
	}
	if o.lacks != "" || err != nil {
		o.Published = injector.Published{}
		return o, err
	}
	return o, r.tryScaledObject(ctx, v)
}

// blockedWays remembers Services whose pods the interceptors could not connect to. While such an app has no ready pod, as in
// a rollout, it must not pass for one that is asleep.
type blockedWays struct {
	mu  sync.Mutex // protects why
	why map[types.NamespacedName]injector.Skip
}

// latest takes note of a proof, and returns what stands against taking the Service over.
func (b *blockedWays) latest(service types.NamespacedName, proof injector.Proof) injector.Skip {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case proof.Blocked:
		if b.why == nil {
			b.why = map[types.NamespacedName]injector.Skip{}
		}
		b.why[service] = proof.Lacks
	case proof.Nothing:
		return b.why[service]
	case proof.Lacks == "":
		delete(b.why, service)
	}
	return proof.Lacks
}

func (b *blockedWays) forget(service types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.why, service)
}

// prove has each interceptor connect to the pods.
func (r *ServiceReconciler) prove(ctx context.Context, service *corev1.Service, e entrance, interceptors []injector.Interceptor) (injector.Proof, error) {
	direct, err := r.directSlices(ctx, service)
	listed := injector.ReadyPorts(direct)
	if err != nil || len(listed) == 0 {
		return injector.Proof{Nothing: true}, err
	}
	allow, err := r.interceptorsText(ctx)
	if err != nil {
		return injector.Proof{}, err
	}
	answers := make([][]injector.PortReach, len(interceptors))
	var asks errgroup.Group
	asks.SetLimit(maxDials)
	for n, i := range interceptors {
		asks.Go(func() (err error) {
			answers[n], err = r.Reach(ctx, i.Address, client.ObjectKeyFromObject(e.front))
			return err
		})
	}
	if err := asks.Wait(); err != nil {
		log.FromContext(ctx).V(1).Info("Asking an interceptor about its way to the pods failed", "error", err.Error())
		return injector.Proof{Lacks: injector.Skip(fmt.Sprintf(
			"scale-to-zero's controller cannot ask its interceptors over gRPC whether they reach the pods (%s); does a NetworkPolicy in namespace %s forbid it?", status.Code(err), r.Namespace))}, nil
	}
	answers = slices.DeleteFunc(answers, func(a []injector.PortReach) bool { return a == nil })
	return injector.Prove(answers, listed, allow), nil
}

// interceptorsText says which pods a NetworkPolicy has to let in.
func (r *ServiceReconciler) interceptorsText(ctx context.Context) (string, error) {
	text := "namespace " + r.Namespace
	own := &corev1.Service{}
	err := r.client.Get(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.InterceptorService}, own)
	if client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("getting the interceptors' service: %w", err)
	}
	if len(own.Spec.Selector) > 0 {
		text += ", pods " + labels.SelectorFromSet(own.Spec.Selector).String()
	}
	return text, nil
}

// tryScaledObject has the API server look at the ScaledObject that the workload is to get, and keep nothing of it. An app
// whose ScaledObject is refused would be taken over and never sleep.
func (r *ServiceReconciler) tryScaledObject(ctx context.Context, v verdict) error {
	if !r.keda.Load() {
		return nil
	}
	scaling := injector.NewScaling([]injector.Settings{v.settings}, max(1, v.workload.Replicas))
	want := injector.ScaledObject(v.workload, scaling, max(1, v.workload.Replicas), r.ScalerAddress)
	switch err := r.client.Get(ctx, client.ObjectKeyFromObject(want), &keda.ScaledObject{}); {
	case err == nil:
		return nil // another Service of the workload has it
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("getting scaledobject %s: %w", client.ObjectKeyFromObject(want), err)
	}
	err := r.client.Create(ctx, want, client.DryRunAll)
	if err == nil || apierrors.IsAlreadyExists(err) || strings.Contains(err.Error(), "does not support dry run") {
		return nil // where a webhook cannot say, the write itself will
	}
	return fmt.Errorf("trying scaledobject %s: %w", client.ObjectKeyFromObject(want), err)
}

// whenBlocked gives an app back that was taken over asleep, and whose pods turn out to be out of the interceptors' reach: a
// visitor would wait in vain, and was served before. The route slices remember why, for the next reconcile to judge by.
func (r *ServiceReconciler) whenBlocked(ctx context.Context, service *corev1.Service, e *entrance, wanted []discoveryv1.EndpointSlice, blocked injector.Skip) (ctrl.Result, error) {
	if r.stories.waited(client.ObjectKeyFromObject(service), string(blocked)) < blockedFor {
		return ctrl.Result{RequeueAfter: 10 * retry}, nil
	}
	e.unproven = string(blocked)
	return ctrl.Result{}, r.applySlices(ctx, wanted, *e)
}

// publishes says that the entrance's route slices list somebody, to whom traffic goes.
func (e entrance) publishes() bool {
	return slices.ContainsFunc(e.slices, func(s discoveryv1.EndpointSlice) bool { return len(s.Endpoints) > 0 })
}

// blocked says why the entrance is to be given back although nothing else stands against it.
func (e entrance) blocked() injector.Skip {
	if e.unproven == injector.UnprovenYet {
		return ""
	}
	return injector.Skip(e.unproven)
}

// askReach is Reach over gRPC.
func askReach(port string) Reach {
	return func(ctx context.Context, interceptor string, front types.NamespacedName) ([]injector.PortReach, error) {
		ctx, cancel := context.WithTimeout(ctx, reachTimeout)
		defer cancel()
		conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(interceptor, port),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: reachTimeout / 5}))
		if err != nil {
			return nil, fmt.Errorf("connecting to interceptor %s: %w", interceptor, err)
		}
		defer conn.Close()
		answer, err := pb.NewReachClient(conn).Pods(ctx, &pb.PodsRequest{Namespace: front.Namespace, Service: front.Name})
		switch status.Code(err) {
		case codes.OK:
		case codes.Unimplemented:
			return nil, nil
		case codes.NotFound, codes.ResourceExhausted:
			return []injector.PortReach{}, nil
		default:
			return nil, fmt.Errorf("asking interceptor %s: %w", interceptor, err)
		}
		found := make([]injector.PortReach, 0, len(answer.GetPorts()))
		for _, p := range answer.GetPorts() {
			_, number, _ := net.SplitHostPort(p.GetAddress())
			found = append(found, injector.PortReach{
				Name: p.GetName(), Ready: int(p.GetReady()), Port: number, Error: p.GetError(),
				Reached: p.GetResult() == pb.Result_RESULT_REACHED, Refused: p.GetResult() == pb.Result_RESULT_REFUSED,
			})
		}
		return found, nil
	}
}
