// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"time"

	pb "github.com/scale-to-zero/scale-to-zero/interceptor/api/peer"
	"github.com/scale-to-zero/scale-to-zero/interceptor/route"
)

// message returns counts and news in the form in which they are sent.
func message(counts []*pb.WorkloadCount, n route.News) *pb.Counts {
	m := &pb.Counts{Workloads: counts, ServerFirstPorts: n.ServerFirst, HttpPorts: n.HTTP}
	for _, t := range n.Tabs {
		m.Tabs = append(m.Tabs, &pb.Tab{
			Listen: t.Listen, Client: t.Client, Place: t.Place, AgeMilliseconds: t.Age.Milliseconds(), Forgotten: t.Forgotten,
		})
	}
	for _, c := range n.Calls {
		m.Calls = append(m.Calls, &pb.Call{
			Namespace: c.Caller.Namespace, Caller: c.Caller.Workload, Callee: c.Callee, AgeMilliseconds: c.Age.Milliseconds(), Asleep: c.Asleep,
		})
	}
	for _, e := range n.Early {
		m.Early = append(m.Early, &pb.Early{Namespace: e.Namespace, Workload: e.Workload, AgeMilliseconds: e.Age.Milliseconds()})
	}
	return m
}

// newsOf returns the news in a message.
func newsOf(m *pb.Counts) route.News {
	n := route.News{ServerFirst: m.GetServerFirstPorts(), HTTP: m.GetHttpPorts()}
	for _, t := range m.GetTabs() {
		n.Tabs = append(n.Tabs, route.TabNews{
			Listen: t.GetListen(), Tab: route.Tab{Client: t.GetClient(), Place: t.GetPlace()},
			Age: time.Duration(max(0, t.GetAgeMilliseconds())) * time.Millisecond, Forgotten: t.GetForgotten(),
		})
	}
	for _, c := range m.GetCalls() {
		n.Calls = append(n.Calls, route.CallNews{
			Caller: route.Key{Namespace: c.GetNamespace(), Workload: c.GetCaller()}, Callee: c.GetCallee(),
			Age: time.Duration(max(0, c.GetAgeMilliseconds())) * time.Millisecond, Asleep: c.GetAsleep(),
		})
	}
	for _, e := range m.GetEarly() {
		n.Early = append(n.Early, route.EarlyNews{
			Key: route.Key{Namespace: e.GetNamespace(), Workload: e.GetWorkload()},
			Age: time.Duration(max(0, e.GetAgeMilliseconds())) * time.Millisecond,
		})
	}
	return n
}
