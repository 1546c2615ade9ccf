// SPDX-License-Identifier: Apache-2.0

// Package assoc mines association rules over weighted bitset transactions. It knows nothing of what the items are.
package assoc
