// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const scalersBuilder = `package scaling

func buildScaler() {
	switch triggerType {
	case "aws-sqs-queue":
		return scalers.NewAwsSqsQueueScaler(ctx, config)
	case "cron":
		return scalers.NewCronScaler(config)
	// TODO: use other way for test.
	case "external-mock":
		return scalers.NewExternalMockScaler(config)
	default:
		return nil, errors.New("no scaler")
	}
}
`

func TestDropScalers(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"pkg/scaling/scalers_builder.go": scalersBuilder, "pkg/scalers/scaler.go": "", "pkg/scalers/cron_scaler.go": "",
		"pkg/scalers/aws_sqs_queue_scaler.go": "", "pkg/scalers/external_mock_scaler.go": "",
	})
	if err := dropScalers(dir, map[string]string{"cron": "cron_scaler.go"}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "pkg/scaling/scalers_builder.go"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(scalersBuilder,
		scalersBuilder[strings.Index(scalersBuilder, "\tcase \"aws"):strings.Index(scalersBuilder, "\tcase \"cron")], "", 1)
	want = strings.Replace(want, want[strings.Index(want, "\t// TODO"):strings.Index(want, "\tdefault")], "", 1)
	if string(content) != want {
		t.Errorf("got %s", content)
	}
	for file, want := range map[string]bool{
		"scaler.go": true, "cron_scaler.go": true, "aws_sqs_queue_scaler.go": false, "external_mock_scaler.go": false,
	} {
		if got := exists(filepath.Join(dir, "pkg/scalers", file)); got != want {
			t.Errorf("%s is there: %t", file, got)
		}
	}
	if err := dropScalers(dir, map[string]string{"no-such": "cron_scaler.go"}); err == nil {
		t.Error("a trigger that is not there, and no error")
	}
}

// An edit that does not fit a later release is an error, and not skipped.
func TestKEDAEdits(t *testing.T) {
	for name, tc := range map[string]struct {
		edit  kedaEdit
		want  string // of the file; empty: gone
		fails bool
	}{
		"replaced":  {edit: kedaEdit{file: "a.go", pattern: `(?m)^package main$`, with: "package a"}, want: "package a\nmain\nmain\n"},
		"ambiguous": {edit: kedaEdit{file: "a.go", pattern: `(?m)^main$`, with: "x"}, want: "package main\nmain\nmain\n", fails: true},
		"no match":  {edit: kedaEdit{file: "a.go", pattern: `other`}, want: "package main\nmain\nmain\n", fails: true},
		"removed":   {edit: kedaEdit{file: "a.go"}},
		"missing":   {edit: kedaEdit{file: "b.go"}, want: "package main\nmain\nmain\n", fails: true},
		"ours":      {edit: kedaEdit{file: "a.go", ours: "ours.go"}, want: "ours"},
	} {
		t.Run(name, func(t *testing.T) {
			work, ours := t.TempDir(), t.TempDir()
			writeFiles(t, work, map[string]string{"a.go": "package main\nmain\nmain\n"})
			writeFiles(t, ours, map[string]string{"ours.go": "ours"})
			err := tc.edit.apply(work, ours)
			content, _ := os.ReadFile(filepath.Join(work, "a.go")) // gone is empty
			if (err != nil) != tc.fails || string(content) != tc.want {
				t.Errorf("%q, %v", content, err)
			}
		})
	}
}
