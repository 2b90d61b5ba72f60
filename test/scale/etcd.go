// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

const etcdAddress = "http://127.0.0.1:2379"

// stored is what is in etcd of one kind of object.
type stored struct{ objects, bytes int }

// keyValue is a key of etcd with its value, as its gateway writes it.
type keyValue struct{ Key, Value []byte }

// resourceOf returns the resource of an object that belongs to the namespace, from its key: /registry/RESOURCE/NAMESPACE/NAME, where
// RESOURCE may have several parts. Objects that come and go by themselves are none.
func resourceOf(key, namespace string) string {
	resource, name, ok := strings.Cut(strings.TrimPrefix(key, "/registry/"), "/"+namespace+"/")
	if !ok || strings.Contains(name, "/") || slices.Contains([]string{"events", "pods", "leases"}, resource) {
		return ""
	}
	return resource
}

// storedIn counts the objects of a namespace in etcd, by resource.
func storedIn(ctx context.Context, namespace string) (map[string]stored, error) {
	prefixes := map[string]struct{}{}
	if err := etcdRange(ctx, "/registry/", true, func(kv keyValue) {
		if resource := resourceOf(string(kv.Key), namespace); resource != "" {
			prefixes[resource] = struct{}{}
		}
	}); err != nil {
		return nil, err
	}
	all := map[string]stored{}
	for resource := range prefixes {
		if err := etcdRange(ctx, "/registry/"+resource+"/"+namespace+"/", false, func(kv keyValue) {
			s := all[resource]
			all[resource] = stored{s.objects + 1, s.bytes + len(kv.Key) + len(kv.Value)}
		}); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// etcdPage is how many keys one answer has.
const etcdPage = 5000

// etcdRange calls each with every key that has the prefix.
func etcdRange(ctx context.Context, prefix string, keysOnly bool, each func(keyValue)) error {
	from, end := []byte(prefix), []byte(prefix)
	end[len(end)-1]++
	for {
		body, err := json.Marshal(map[string]any{"key": from, "range_end": end, "limit": etcdPage, "keys_only": keysOnly})
		if err != nil {
			return fmt.Errorf("asking etcd: %w", err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, etcdAddress+"/v3/kv/range", bytes.NewReader(body))
		if err != nil {
			return fmt.Errorf("asking etcd: %w", err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("asking etcd: %w", err)
		}
		var answer struct {
			KVs  []keyValue
			More bool
		}
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("asking etcd: %s: %w", resp.Status, err)
		}
		for _, kv := range answer.KVs {
			each(kv)
		}
		if !answer.More || len(answer.KVs) == 0 {
			return nil
		}
		from = slices.Concat(answer.KVs[len(answer.KVs)-1].Key, []byte{0})
	}
}

// sum adds up what is stored of all resources.
func sum(all map[string]stored) stored {
	var total stored
	for _, s := range all {
		total = stored{total.objects + s.objects, total.bytes + s.bytes}
	}
	return total
}
