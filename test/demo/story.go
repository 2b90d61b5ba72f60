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
	// toSleep is how long falling asleep may take: the cool-down, KEDA's next poll, and a slow machine.
	toSleep = 90 * time.Second
)

// A story is what happens to the app, from the label on.
type story struct {
	narrator *narrator
	cluster  cluster
	browser  browser

	before      snapshot
	quietSince  time.Time // of the last visit
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
		seen := fmt.Sprintf("%d replicas, endpoints %v", s.before.replicas, s.before.endpoints)
		return &failure{"the app runs", "1 replica, behind the Service", seen}
	}
	n.blank()
	n.say("One pod runs day and night, and the Service sends every request to it.")
	return nil
}

// titled returns one row for each value, the first with a title.
func titled(title, mark string, values []string) []row {
	var rows []row
	for _, value := range values {
		rows = append(rows, row{mark: mark, cells: []string{title, value}})
		title = ""
	}
	return rows
}

// label sets the one Helm value, and compares the objects with those of before.
func (s *story) label(ctx context.Context) error {
	n := s.narrator
	n.heading("2. The one Helm value")
	args := []string{
		"upgrade", "airflow", appChart, "-n", appNamespace, "--reuse-values", "--set-string", "webserver.labels.scale-to-zero=true",
	}
	n.command(append([]string{"helm"}, args...)...)
	done := n.progress("upgrading")
	_, err := s.cluster.helm(ctx, args...)
	done()
	if err != nil {
		return err
	}
	var after snapshot
	took, err := n.await(ctx, condition{
		step: "traffic is redirected", within: time.Minute,
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
	n.saw(fmt.Sprintf("Helm is done. %s later, the Service's traffic goes through scale-to-zero:", seconds(took)))
	n.blank()
	n.table(slices.Concat(
		[]row{{cells: []string{"Service", webserver}}},
		titled("  selector", "", s.before.selector()), titled("", "+", []string{sentinel + "=true"}),
		titled("  endpoints", "-", s.before.whoAnswers()), titled("", "+", after.whoAnswers()),
	)...)
	n.blank()
	n.say("No pod has that key, so Kubernetes no longer lists any as the Service's endpoints; scale-to-zero lists its " +
		"interceptors instead. They forward every request to the app, and hold it while the app sleeps.")
	return s.compare(after)
}

// compare says what is new, and fails if anything else has changed.
func (s *story) compare(after snapshot) error {
	n := s.narrator
	for _, c := range []struct {
		what          string
		before, after spec
	}{
		{"the Service keeps everything but its selector", s.before.service.withoutSelector(), after.service.withoutSelector()},
		{"the Ingress stays the same", s.before.ingress, after.ingress},
	} {
		if len(c.before) == 0 || !c.before.equal(c.after) {
			return &failure{c.what, c.before.String(), c.after.String()}
		}
	}
	more, fewer := added(s.before.names, after.names)
	if len(fewer) > 0 {
		return &failure{"all of the app's objects still exist", strings.Join(fewer, ", "), "missing"}
	}
	n.blank()
	n.say("A field-by-field comparison shows that the Service's ports and address and the Ingress are unchanged. (The chart puts " +
		"the label on its pods too, so Helm has replaced the pod.) New in the namespace:")
	n.blank()
	purposes := map[string]string{
		"Service":                 "lists the app's pods for the interceptors",
		"EndpointSlice":           "list the addresses behind the two Services",
		"ScaledObject":            "makes KEDA ask the interceptors whether the app is in use",
		"HorizontalPodAutoscaler": "KEDA's, for scaling beyond one replica",
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
	s.narrator.heading("3. The events so far")
	return s.events(ctx, "Injected")
}

func (s *story) sleep(ctx context.Context) error {
	s.narrator.heading("4. Nobody visits")
	if err := s.asleep(ctx, "the label took effect"); err != nil {
		return err
	}
	s.narrator.blank()
	s.narrator.say("No process, no memory. The scheduler is not labelled and keeps running.")
	return nil
}

// asleep waits until the app has no pod, and shows that. Since names the event at quietSince.
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

// deployments shows the Deployments as kubectl does.
func (s *story) deployments(ctx context.Context) error {
	args := []string{"get", "deployments", "-n", appNamespace}
	s.narrator.command(append([]string{"kubectl"}, args...)...)
	out, err := s.cluster.kubectl(ctx, args...)
	s.narrator.verbatim(out)
	return err
}

// visit sends two requests: one to the sleeping app, and one to the same app once it is awake.
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
		"held while the app was scaled up and started; the start alone takes 3 s",
		"through the interceptor to a running pod",
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
			n.say("No error and no retry: the visitor waited, and got the app's own answer. Once more:")
			n.blank()
		}
	}
	return nil
}

// openBrowser opens the visitor's way to the Service.
func (s *story) openBrowser(ctx context.Context) error {
	n := s.narrator
	if s.cluster.context == "" {
		n.say("This forwards a port of this machine to the Service, as an Ingress would:")
		n.blank()
		return s.browser.open(ctx, n, s.cluster)
	}
	n.say("This forwards a port of this machine to one of the Service's endpoints, as an Ingress would:")
	n.blank()
	now, err := s.look(ctx)
	if err != nil {
		return err
	}
	if !now.intercepted() {
		return &failure{"traffic is redirected", "interceptors as the Service's endpoints", fmt.Sprint(now.endpoints)}
	}
	to := now.endpoints[0]
	n.command("kubectl", "port-forward", "-n", to.namespace, "pod/"+to.pod, to.address[strings.LastIndex(to.address, ":"):])
	s.browser.client = &http.Client{Transport: &http.Transport{}, Timeout: visitTimeout}
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
	n.say("After that there are no more visits.")
	n.blank()
	return s.asleep(ctx, "the last visit")
}

func (s *story) allEvents(ctx context.Context) error {
	s.narrator.heading("7. The whole story, in events")
	return s.events(ctx, "Injected", "Asleep", "WakeRequested", "Awake", "Asleep")
}

// events shows the events on the Service, once the expected ones are there.
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
	n.heading("8. Try it yourself")
	n.say("The app is asleep. Open it in a browser:")
	n.blank()
	n.line(indent + n.paint(bold, s.browser.url()))
	n.blank()
	n.say("The first line puts this cluster's kubectl and helm into your shell. Watch the app, and remove and set the label:")
	n.blank()
	n.line(n.paint(cyan, `$ eval "$(go run -C test/cluster . env)"`))
	n.command("kubectl", "get", "pods", "-n", appNamespace, "--watch")
	n.command("kubectl", "events", "-n", appNamespace, "--for", "service/"+webserver, "--watch")
	n.command("kubectl", "label", "service", "-n", appNamespace, webserver, "scale-to-zero-")
	n.command("kubectl", "label", "service", "-n", appNamespace, webserver, "scale-to-zero=true")
	n.blank()
	n.say("When you are done, remove the cluster; nothing keeps running:")
	n.blank()
	n.command("go", "run", "-C", "test/cluster", ".", "down")
}
