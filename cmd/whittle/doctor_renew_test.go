// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/whittle-sec/whittle/internal/traffic"
)

func TestRenewalFindings(t *testing.T) {
	for _, tc := range []struct {
		name string
		got  finding
		want answer
	}{
		{"sockets move", trafficFinding(nil), yes},
		{"an older kernel", trafficFinding(fmt.Errorf("%w: no such helper", traffic.ErrUnsupported)), no},
		{"nobody could tell", trafficFinding(errors.New("no memory")), ""},
		{"packets wait", gateFinding("a packet queue", nil), yes},
		{"they do not", gateFinding("", errors.New("no nftables")), no},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.got.Answer != tc.want || tc.got.Detail == "" || tc.got.Answer == no && tc.got.Fix == "" {
				t.Errorf("got %+v, want %q, why, and what to do", tc.got, tc.want)
			}
		})
	}
}
