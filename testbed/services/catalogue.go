// SPDX-License-Identifier: Apache-2.0

package services

// catalogue of all services, by kind. Each kind has a file of its own.
func catalogue() []func() []Service {
	return []func() []Service{
		web,
		proxies,
		pages,
		databases,
		names,
		brokers,
		interpreters,
		mail,
		transfers,
		relays,
		directories,
		batches,
	}
}

func databases() []Service { return []Service{postgres(), mariadb(), redis(), memcached()} }
