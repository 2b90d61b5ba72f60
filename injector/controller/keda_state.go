// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"
	"time"

	"github.com/scale-to-zero/scale-to-zero/injector"
)

// settling is how long a reconcile waits for the decision whether KEDA can be used. Both answers change ScaledObjects, so a plan that
// is made before would be undone a moment later.
const settling = 500 * time.Millisecond

// kedaState is whether KEDA is installed, and whether it can ask the interceptors.
type kedaState struct {
	mu      sync.Mutex // protects all below
	present bool
	scaler  *injector.Scaler // how KEDA reaches the interceptors; nil if it cannot
	problem string           // why it cannot; empty while that is not known either
}

// install notes that KEDA is installed. scaler is how it reaches the interceptors, nil if that is still to be found out.
func (k *kedaState) install(scaler *injector.Scaler) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.present, k.scaler, k.problem = true, scaler, ""
}

// remove notes that KEDA is not installed.
func (k *kedaState) remove() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.present, k.scaler, k.problem = false, nil, ""
}

// accept notes how KEDA reaches the interceptors, and reports whether that is news.
func (k *kedaState) accept(s injector.Scaler) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.present || k.scaler != nil && *k.scaler == s {
		return false
	}
	k.scaler, k.problem = &s, ""
	return true
}

// refuse notes why KEDA cannot ask the interceptors, and reports whether that is news.
func (k *kedaState) refuse(problem string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.present || k.scaler == nil && k.problem == problem {
		return false
	}
	k.scaler, k.problem = nil, problem
	return true
}

// installed reports whether there are ScaledObjects.
func (k *kedaState) installed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.present
}

// settled reports whether it is known if KEDA can be used.
func (k *kedaState) settled() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.present || k.scaler != nil || k.problem != ""
}

// usable returns how KEDA reaches the interceptors; nil if it does not.
func (k *kedaState) usable() *injector.Scaler {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.scaler
}

// describe writes the state into i.
func (k *kedaState) describe(i *injector.Install) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i.KEDA, i.NoKEDA = k.present && k.scaler != nil, k.problem
	if k.scaler != nil {
		i.Scaler = *k.scaler
	}
}
