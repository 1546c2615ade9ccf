// SPDX-License-Identifier: Apache-2.0

package renew

// Profiles that renewals were given which are under way or were cut off, whose successors may be yet to be made.
func Profiles(dir string) (paths []string, err error) {
	names, err := journals(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		j, _, err := read(name)
		if err != nil {
			return nil, err
		}
		if j != nil && j.head.Request.Changes.Seccomp != "" {
			paths = append(paths, j.head.Request.Changes.Seccomp)
		}
	}
	return paths, nil
}
