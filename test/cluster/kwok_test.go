// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"testing"
)

func TestKwokObjects(t *testing.T) {
	manifest, err := kwokObjects(2)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Items []struct {
			Kind     string
			Metadata struct {
				Name   string
				Labels map[string]string
			}
		}
	}
	if err := json.Unmarshal(manifest, &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, object := range list.Items {
		names = append(names, object.Kind+"/"+object.Metadata.Name)
		if object.Kind == "Node" && object.Metadata.Labels["type"] != "kwok" {
			t.Errorf("%s has labels %v: kwok would not play it", object.Metadata.Name, object.Metadata.Labels)
		}
	}
	if want := []string{"ServiceCIDR/kwok", "Node/kwok-1", "Node/kwok-2"}; !slices.Equal(names, want) {
		t.Errorf("objects are %v, want %v", names, want)
	}
}

// The addresses of a cluster's ranges are each for one purpose.
func TestRangesDoNotOverlap(t *testing.T) {
	all := []string{podCIDR, serviceCIDR, nodePrefix + "0/24", kwokPods, kwokServices}
	for i, a := range all {
		for _, b := range all[i+1:] {
			if netip.MustParsePrefix(a).Masked().Overlaps(netip.MustParsePrefix(b)) {
				t.Errorf("%s overlaps %s", a, b)
			}
		}
	}
}

func TestKwokConfiguration(t *testing.T) {
	if pods := fmt.Sprintf("pods: %q", strconv.Itoa(kwokPodsPerNode)); !bytes.Contains(kwokConfiguration, []byte(pods)) {
		t.Errorf("the nodes of kwok.yaml do not have %s", pods)
	}
}

func TestLarge(t *testing.T) {
	small, large := &cluster{}, &cluster{large: true}
	if small.autoscalerPeriod() != "5s" || large.autoscalerPeriod() != "15s" {
		t.Errorf("autoscalers look every %s, and in a large cluster every %s", small.autoscalerPeriod(), large.autoscalerPeriod())
	}
	keda := []byte("system:serviceaccounts:keda")
	if bytes.Contains(small.auditPolicy(), keda) || !bytes.Contains(large.auditPolicy(), keda) {
		t.Errorf("audit policies are\n%s\nand in a large cluster\n%s", small.auditPolicy(), large.auditPolicy())
	}
}
