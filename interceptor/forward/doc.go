// Package forward carries requests and connections to pods: HTTP by net/http's reverse proxy, everything else byte by
// byte. Which pod, and how long to wait for one, is the Picker's business (package route); how the bytes get there is
// this package's alone, so that another engine can take its place.
//
// A limit of net/http's server that holding meets: it reads ahead, and so notices that a client has gone, only when the
// request's body has been read. A request with a body that is held keeps its place until a pod is ready or the hold
// timeout is over, whether or not its client still waits.
package forward

import (
	"context"
	"net/http"

	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// Picker chooses the pod for a request and waits for one if need be. *route.Route is one.
type Picker interface {
	Pick(ctx context.Context, v *route.Visit) (*route.Endpoint, error)
}

// Engine makes the handler that forwards a route's HTTP requests.
type Engine interface {
	// Handler returns the handler for the pods that p picks. It answers errors itself, by Respond.
	Handler(p Picker) http.Handler
	// CloseIdle closes connections to pods that no request uses.
	CloseIdle()
}
