// SPDX-License-Identifier: Apache-2.0

package main

// attacks that there are.
func attacks() []Attack { return nil }
