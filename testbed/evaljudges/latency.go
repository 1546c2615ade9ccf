// SPDX-License-Identifier: Apache-2.0

package main

import "context"

// latency of a verdict, in microseconds.
type latency struct {
	Lines []string
}

func measureLatency(context.Context) (*latency, error) { return &latency{}, nil }
