// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"
)

// watcher waits for the first connection at all ports at once, so that a route without connections needs no goroutine. It has an
// epoll instance of its own, in which each port reports once and then has to be armed again. Its single goroutine waits as Go waits
// for any file: an epoll instance can itself be polled.
//
// A nil watcher watches nothing.
type watcher struct {
	file *os.File // the epoll instance
	fd   int
	log  logr.Logger
	done chan struct{} // is closed when the goroutine has ended

	mu      sync.Mutex // protects all below
	servers map[int32]*server
	begun   bool
}

// newWatcher returns nil, and logs why, if the kernel does not allow a watcher.
func newWatcher(log logr.Logger) *watcher {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // this makes os.NewFile let Go's poller wait for it
	}
	if err != nil {
		log.Error(err, "Watching ports failed; each has a goroutine")
		return nil
	}
	return &watcher{
		file: os.NewFile(uintptr(fd), "epoll"), fd: fd, log: log, done: make(chan struct{}), servers: map[int32]*server{},
	}
}

// add watches the port of s, and reports whether it does. Then s is woken when a connection comes.
func (w *watcher) add(s *server) bool { return w.control(unix.EPOLL_CTL_ADD, s) }

// rearm watches the port again after it has reported. A connection that has come in between is reported at once.
func (w *watcher) rearm(s *server) bool { return w.control(unix.EPOLL_CTL_MOD, s) }

func (w *watcher) control(op int, s *server) bool {
	if w == nil {
		return false
	}
	err := w.tell(op, s)
	if err != nil {
		w.log.Error(err, "Watching a port failed; it has a goroutine", "listen", s.route.Port.Listen)
	}
	return err == nil
}

func (w *watcher) tell(op int, s *server) error {
	raw, err := s.listener.SyscallConn()
	if err != nil {
		return fmt.Errorf("watching: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fd)} //nolint:gosec // descriptors are small
		w.mu.Lock()
		defer w.mu.Unlock()
		w.servers[event.Fd] = s
		if !w.begun {
			w.begun = true
			go w.run()
		}
		failed = unix.EpollCtl(w.fd, op, int(fd), &event)
	})
	return errors.Join(err, failed)
}

// remove forgets the port of s, which is about to be closed. The kernel forgets it then.
func (w *watcher) remove(s *server) {
	if w == nil {
		return
	}
	raw, err := s.listener.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.servers, int32(fd)) //nolint:gosec // descriptors are small
	})
}

// close ends the goroutine. Nothing is watched any more.
func (w *watcher) close() {
	if w == nil {
		return
	}
	_ = w.file.Close() // it ends the wait
	w.mu.Lock()
	begun := w.begun
	w.mu.Unlock()
	if begun {
		<-w.done
	}
}

func (w *watcher) run() {
	defer close(w.done)
	raw, err := w.file.SyscallConn()
	if err != nil {
		return // closed already
	}
	events := make([]unix.EpollEvent, 64)
	for {
		n, failed := 0, error(nil)
		err := raw.Read(func(fd uintptr) bool {
			n, failed = unix.EpollWait(int(fd), events, 0)
			return n > 0 || failed != nil && !errors.Is(failed, syscall.EINTR)
		})
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil || failed != nil:
			w.log.Error(errors.Join(err, failed), "Waiting for connections has ended; each port has a goroutine from now on")
			w.wakeAll()
			return
		}
		for _, event := range events[:n] {
			w.mu.Lock()
			s := w.servers[event.Fd]
			w.mu.Unlock()
			if s != nil {
				s.wake()
			}
		}
	}
}

// wakeAll is the last resort. A port that has a goroutine already gets a second one, which does no harm.
func (w *watcher) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.servers {
		s.wake()
	}
}
