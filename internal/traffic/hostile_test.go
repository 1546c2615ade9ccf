// SPDX-License-Identifier: Apache-2.0

package traffic

func (s service) hostile() error { return nil }
func extra(name string) error    { return nil }
