// SPDX-License-Identifier: Apache-2.0

package policy

import "fmt"

// RoleKey names a role in Calls.Roles: the path by which its program was executed, and its generation.
func RoleKey(path string, generation uint8) string { return fmt.Sprintf("%s:%d", path, generation) }
