package route

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scale-to-zero/scale-to-zero/interceptor/api"
)

// failing is a Service whose workload cannot start, as of a look of the injector.
func failing(seen int64) Service {
	s := web()
	s.Pods = 1
	s.Progress = api.Progress{Stage: api.StagePulling, Failing: "no such image", Reason: "ImagePullBackOff", Seen: time.Unix(seen, 0)}
	return s
}

// Who waits is told as soon as it is known that the workload cannot start, and so is who comes later.
func TestStartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(web())
		r := f.route(10000)
		got := make(chan error)
		for range 2 {
			go func() {
				_, err := r.Pick(t.Context(), &Visit{})
				got <- err
			}()
		}
		synctest.Wait()
		starting := web()
		starting.Pods, starting.Progress.Stage = 1, api.StagePulling
		f.SetService(starting)
		synctest.Wait()
		if p := r.Progress(); r.Held() != 2 || p.Stage != api.StagePulling {
			t.Errorf("%d held, progress %+v", r.Held(), p)
		}
		f.SetService(failing(1))
		var failed *StartFailedError
		for range 2 {
			if err := <-got; !errors.As(err, &failed) || failed.Service != "shop/web" || failed.Progress.Failing != "no such image" {
				t.Errorf("got %v", err)
			}
		}
		if _, err := r.Pick(t.Context(), &Visit{}); !errors.As(err, &failed) {
			t.Errorf("who comes later got %v", err)
		}
		if _, err := r.PickReady(t.Context(), &Visit{}); !errors.As(err, &failed) {
			t.Errorf("a probe got %v", err)
		}
		ready := failing(1)
		ready.Endpoints = map[string][]string{"http": {"10.0.0.1:80"}}
		f.SetService(ready)
		if e, err := r.Pick(t.Context(), &Visit{}); err != nil {
			t.Errorf("with a pod that is ready: %v", err)
		} else {
			e.Done()
		}
	})
}

// What nobody renews holds no longer than a while; what is renewed does.
func TestStartFailsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(0)
		f.SetService(failing(1))
		r := f.route(10000)
		var failed *StartFailedError
		advance(api.FailingFor - time.Second)
		f.SetService(failing(1)) // nothing new
		if _, err := r.Pick(t.Context(), &Visit{}); !errors.As(err, &failed) {
			t.Errorf("got %v", err)
		}
		f.SetService(failing(2))
		advance(2 * time.Second)
		if _, err := r.Pick(t.Context(), &Visit{}); !errors.As(err, &failed) {
			t.Errorf("renewed: got %v", err)
		}
		advance(api.FailingFor)
		var timeout *HoldTimeoutError
		if _, err := r.Pick(t.Context(), &Visit{}); !errors.As(err, &timeout) {
			t.Errorf("not renewed: got %v, want it to be held", err)
		}
	})
}
