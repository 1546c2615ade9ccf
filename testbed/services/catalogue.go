// SPDX-License-Identifier: Apache-2.0

package services

// catalogue of all services, by kind. Each kind has a file of its own.
func catalogue() []func() []Service {
	return []func() []Service{
		web,
		databases,
		names,
		brokers,
		interpreters,
		mail,
		transfers,
	}
}

func databases() []Service { return []Service{postgres(), redis(), memcached()} }
