// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	ourNamespace = "scale-to-zero"
	appNamespace = "airflow-demo"
	appChart     = "test/demo/chart"
	webserver    = "airflow-webserver" // its Service and its Deployment
	cooldown     = "10s"
	// toSleep is how long falling asleep may take: the cool-down, KEDA's next look at it, and a slow machine.
	toSleep = 90 * time.Second
)

// A story is what happens to the app from the label on.
type story struct {
	narrator *narrator
	cluster  cluster
	browser  browser

	before      snapshot
	quietSince  time.Time // since then nobody has visited
	stopForward func()
}

func (s *story) run(ctx context.Context) error {
	defer func() {
		if s.stopForward != nil {
			s.stopForward()
		}
	}()
	for _, step := range []func(context.Context) error{
		s.beforeLabel, s.label, s.firstEvents, s.sleep, s.visit, s.sleepAgain, s.allEvents,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if s.cluster.context == "" {
		s.playOn()
	}
	return nil
}

func (s *story) beforeLabel(ctx context.Context) error {
	n := s.narrator
	n.heading("1. Before")
	n.command("kubectl", "get", "-n", appNamespace, "deployments,services,ingresses,endpointslices")
	var err error
	if s.before, err = s.look(ctx); err != nil {
		return err
	}
	n.table(slices.Concat(
		[]row{
			{cells: []string{"Deployment", webserver}},
			{cells: []string{"  replicas", strconv.Itoa(s.before.replicas)}},
			{cells: []string{"Service", webserver}},
		},
		titled("  selector", "", s.before.selector()), titled("  endpoints", "", s.before.whoAnswers()),
	)...)
	if s.before.replicas != 1 || len(s.before.endpoints) != 1 || s.before.intercepted() {
		return &failure{"the app runs", "1 replica, behind the Service", fmt.Sprintf("%d replicas, endpoints %v", s.before.replicas, s.before.endpoints)}
	}
	n.blank()
	n.say("One pod, day and night, and the Service sends everybody to it.")
	return nil
}

// titled returns a row for each value, the first with a title.
func titled(title, mark string, values []string) []row {
	var rows []row
	for _, value := range values {
		rows = append(rows, row{mark: mark, cells: []string{title, value}})
		title = ""
	}
	return rows
}

// label sets the one Helm value, and compares what there is with what there was.
func (s *story) label(ctx context.Context) error {
	n := s.narrator
	n.heading("2. The one Helm value")
	args := []string{"upgrade", "airflow", appChart, "-n", appNamespace, "--reuse-values", "--set-string", "webserver.labels.scale-to-zero=true"}
	n.command(append([]string{"helm"}, args...)...)
	done := n.progress("upgrading")
	_, err := s.cluster.helm(ctx, args...)
	done()
	if err != nil {
		return err
	}
	var after snapshot
	took, err := n.await(ctx, condition{
		step: "the Service is taken over", within: time.Minute,
		want: "one more key in its selector, the interceptors as its endpoints, with KEDA a ScaledObject and its HorizontalPodAutoscaler",
		holds: func(ctx context.Context) (bool, string, error) {
			var err error
			after, err = s.look(ctx)
			more, fewer := added(s.before.selector(), after.selector())
			scaled := !s.cluster.keda || (after.has("ScaledObject") && after.has("HorizontalPodAutoscaler"))
			seen := fmt.Sprintf("selector %v, endpoints %v, objects %v", after.selector(), after.endpoints, after.names)
			return slices.Equal(more, []string{sentinel + "=true"}) && len(fewer) == 0 && after.intercepted() && scaled, seen, err
		},
	})
	if err != nil {
		return err
	}
	s.quietSince = time.Now()
	n.saw(fmt.Sprintf("Helm is done, and %s later the Service is taken over:", seconds(took)))
	n.blank()
	n.table(slices.Concat(
		[]row{{cells: []string{"Service", webserver}}},
		titled("  selector", "", s.before.selector()), titled("", "+", []string{sentinel + "=true"}),
		titled("  endpoints", "-", s.before.whoAnswers()), titled("", "+", after.whoAnswers()),
	)...)
	n.blank()
	n.say("No pod has that key, so Kubernetes lists none for the Service any more; scale-to-zero lists its interceptors " +
		"instead. They pass every request on to the app, and hold it while the app sleeps.")
	return s.compare(after)
}

// compare says what is new, and that nothing else has changed.
func (s *story) compare(after snapshot) error {
	n := s.narrator
	for _, c := range []struct {
		what          string
		before, after spec
	}{
		{"the Service stays as it was, but for its selector", s.before.service.without("selector"), after.service.without("selector")},
		{"the Ingress stays as it was", s.before.ingress, after.ingress},
	} {
		if len(c.before) == 0 || !c.before.equal(c.after) {
			return &failure{c.what, c.before.String(), c.after.String()}
		}
	}
	more, fewer := added(s.before.names, after.names)
	if len(fewer) > 0 {
		return &failure{"all objects of the app are still there", strings.Join(fewer, ", "), "not there"}
	}
	n.blank()
	n.say("Compared field by field with before: the Service's ports and address are the same, and so is the Ingress. (The " +
		"chart puts the label on its pods, too, so Helm has replaced the pod.) New in the namespace:")
	n.blank()
	purposes := map[string]string{
		"Service":                 "lists the app's pods, for the interceptors",
		"EndpointSlice":           "the addresses behind the two Services",
		"ScaledObject":            "has KEDA ask the interceptors if anybody is there",
		"HorizontalPodAutoscaler": "KEDA's, for more than one replica",
	}
	var rows []row
	for _, name := range more {
		kind, name, _ := strings.Cut(name, " ")
		if last := len(rows) - 1; last >= 0 && rows[last].cells[0] == kind {
			rows[last].cells[1] += " " + name
			continue
		}
		rows = append(rows, row{mark: "+", cells: []string{kind, name}})
	}
	for i := len(rows); i > 0; i-- {
		rows = slices.Insert(rows, i, row{cells: []string{"", purposes[rows[i-1].cells[0]]}})
	}
	n.table(rows...)
	return nil
}

func (s *story) firstEvents(ctx context.Context) error {
	s.narrator.heading("3. What it says about that")
	return s.events(ctx, "Injected")
}

func (s *story) sleep(ctx context.Context) error {
	s.narrator.heading("4. Nobody visits")
	if err := s.asleep(ctx, "it was taken over"); err != nil {
		return err
	}
	s.narrator.blank()
	s.narrator.say("No process, no memory. The scheduler, which nobody has labelled, goes on.")
	return nil
}

// asleep waits until the app has no pod, and shows that. since is what quietSince was.
func (s *story) asleep(ctx context.Context, since string) error {
	n := s.narrator
	_, err := n.await(ctx, condition{
		step: "the app falls asleep", want: "0 replicas", within: toSleep,
		holds: func(ctx context.Context) (bool, string, error) {
			now, err := s.look(ctx)
			return now.replicas == 0, fmt.Sprintf("%d replicas, %d pods", now.replicas, now.pods), err
		},
	})
	if err != nil {
		return err
	}
	zero := time.Since(s.quietSince)
	gone, err := n.await(ctx, condition{
		step: "its pod ends", want: "no pod", within: time.Minute,
		holds: func(ctx context.Context) (bool, string, error) {
			now, err := s.look(ctx)
			return now.replicas == 0 && now.pods == 0, fmt.Sprintf("%d replicas, %d pods", now.replicas, now.pods), err
		},
	})
	if err != nil {
		return err
	}
	n.saw(fmt.Sprintf("Zero replicas %s after %s; its pod was gone %s later.", seconds(zero), since, seconds(gone)))
	n.blank()
	return s.deployments(ctx)
}

// deployments shows them as kubectl does.
func (s *story) deployments(ctx context.Context) error {
	args := []string{"get", "deployments", "-n", appNamespace}
	s.narrator.command(append([]string{"kubectl"}, args...)...)
	out, err := s.cluster.kubectl(ctx, args...)
	s.narrator.verbatim(out)
	return err
}

// visit sends two requests: one to the app that sleeps, one to the app that is awake.
func (s *story) visit(ctx context.Context) error {
	n := s.narrator
	n.heading("5. The first visit")
	if err := s.openBrowser(ctx); err != nil {
		return err
	}
	n.blank()
	defer func() {
		s.browser.close()
		s.quietSince = time.Now()
	}()
	for i, meaning := range []string{
		"held while the app was scaled up and started, which alone takes 3 s",
		"through the interceptor to a pod that is there",
	} {
		n.command("curl", s.browser.url())
		a, err := s.browser.visit(ctx, n)
		if err != nil {
			return err
		}
		n.saw(a.line)
		n.saw(fmt.Sprintf("(%s after %s: %s)", a.status, seconds(a.took), meaning))
		if i == 0 {
			n.blank()
			n.say("No error, no retry: the visitor has waited, and got the app's own answer. Once more:")
			n.blank()
		}
	}
	return nil
}

// openBrowser gives the visitor a way to the Service.
func (s *story) openBrowser(ctx context.Context) error {
	n := s.narrator
	if s.cluster.context == "" {
		n.say("A port of this machine is led to the Service, as an Ingress would lead to it:")
		n.blank()
		return s.browser.open(ctx, n, s.cluster)
	}
	n.say("A port of this machine is led to one of the Service's endpoints, as an Ingress would lead to it:")
	n.blank()
	now, err := s.look(ctx)
	if err != nil {
		return err
	}
	if !now.intercepted() {
		return &failure{"the Service is taken over", "interceptors as its endpoints", fmt.Sprint(now.endpoints)}
	}
	to := now.endpoints[0]
	n.command("kubectl", "port-forward", "-n", to.namespace, "pod/"+to.pod, to.address[strings.LastIndex(to.address, ":"):])
	s.browser.client = &http.Client{Transport: &http.Transport{}, Timeout: patience}
	s.browser.port, s.stopForward, err = s.cluster.forward(ctx, to)
	return err
}

func (s *story) sleepAgain(ctx context.Context) error {
	n := s.narrator
	n.heading("6. Awake, and asleep again")
	now, err := s.look(ctx)
	if err != nil {
		return err
	}
	if now.replicas != 1 || now.pods != 1 {
		return &failure{"the app is awake", "1 replica, 1 pod", fmt.Sprintf("%d replicas, %d pods", now.replicas, now.pods)}
	}
	if err := s.deployments(ctx); err != nil {
		return err
	}
	n.blank()
	n.say("Then nobody comes any more.")
	n.blank()
	return s.asleep(ctx, "the last visit")
}

func (s *story) allEvents(ctx context.Context) error {
	s.narrator.heading("7. The story in events")
	return s.events(ctx, "Injected", "Asleep", "WakeRequested", "Awake", "Asleep")
}

// events shows the events on the Service, once there are those that are due.
func (s *story) events(ctx context.Context, due ...string) error {
	n := s.narrator
	args := []string{"events", "-n", appNamespace, "--for", "service/" + webserver}
	n.command(append([]string{"kubectl"}, args...)...)
	var events []event
	_, err := n.await(ctx, condition{
		step: "events tell the story", want: strings.Join(due, ", "), within: 20 * time.Second,
		holds: func(ctx context.Context) (bool, string, error) {
			out, err := s.cluster.kubectl(ctx, append(args, "-o", "json")...)
			if err != nil {
				return false, "", err
			}
			events, err = parseEvents(out)
			seen := reasons(events)
			return slices.Equal(seen, due), strings.Join(seen, ", "), err
		},
	})
	if err != nil {
		return err
	}
	now := time.Now()
	rows := []row{{cells: []string{"LAST SEEN", "REASON", "MESSAGE"}}}
	for _, e := range events {
		rows = append(rows, row{cells: []string{now.Sub(e.at).Round(time.Second).String(), e.reason, e.message}})
	}
	n.table(rows...)
	return nil
}

// look takes a snapshot.
func (s *story) look(ctx context.Context) (snapshot, error) {
	kinds := "deployments,services,ingresses,endpointslices"
	if s.cluster.keda {
		kinds += ",scaledobjects,horizontalpodautoscalers"
	}
	objects, err := s.cluster.kubectl(ctx, "get", "-n", appNamespace, "-o", "json", kinds)
	if err != nil {
		return snapshot{}, err
	}
	pods, err := s.cluster.kubectl(ctx, "get", "pods", "-A", "-o", "json")
	if err != nil {
		return snapshot{}, err
	}
	return parseSnapshot(objects, pods)
}

func (s *story) playOn() {
	n := s.narrator
	n.heading("8. Now you")
	n.say("The app sleeps. Open it in a browser:")
	n.blank()
	n.line(indent + n.paint(bold, s.browser.url()))
	n.blank()
	n.say("The first line gives your shell the kubectl and helm of this cluster. Watch, and take the label off and on:")
	n.blank()
	n.line(n.paint(cyan, `$ eval "$(go run -C test/cluster . env)"`))
	n.command("kubectl", "get", "pods", "-n", appNamespace, "--watch")
	n.command("kubectl", "events", "-n", appNamespace, "--for", "service/"+webserver, "--watch")
	n.command("kubectl", "label", "service", "-n", appNamespace, webserver, "scale-to-zero-")
	n.command("kubectl", "label", "service", "-n", appNamespace, webserver, "scale-to-zero=true")
	n.blank()
	n.say("When you have seen enough, this removes the cluster and leaves nothing running:")
	n.blank()
	n.command("go", "run", "-C", "test/cluster", ".", "down")
}
