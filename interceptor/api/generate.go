// Copyright The scale-to-zero authors
// SPDX-License-Identifier: Apache-2.0

package api

//go:generate ./generate.sh
