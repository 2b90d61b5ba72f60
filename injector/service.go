package injector

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// DirectService returns the direct Service of an opted-in Service: headless, with the original selector and the same
// ports, so that Kubernetes itself keeps the list of the real pods in its EndpointSlices.
func DirectService(service *corev1.Service) *corev1.Service {
	ports := make([]corev1.ServicePort, len(service.Spec.Ports))
	for i, p := range service.Spec.Ports {
		p.NodePort = 0
		ports[i] = p
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       service.Namespace,
			Name:            DirectServiceName(service.Name),
			Labels:          labels(service.Name, api.RoleDirect),
			OwnerReferences: []metav1.OwnerReference{OwnerReference(service)},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone,
			Selector:  OriginalSelector(service),
			Ports:     ports,
		},
	}
}

// OwnerReference makes an object go when the Service goes. It does not block the Service's deletion: that would take
// permission on services/finalizers.
func OwnerReference(service *corev1.Service) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: "v1", Kind: "Service", Name: service.Name, UID: service.UID, Controller: new(true),
	}
}

// labels are those of an object that we make for a Service, with its role for the interceptors.
func labels(service, role string) map[string]string {
	return map[string]string{ManagedByLabel: ManagedBy, ServiceLabel: service, api.RoleLabel: role}
}
