// SPDX-License-Identifier: Apache-2.0

package judge

import "fmt"

// carrier asks whether somebody wrote the call into the program. The C library has all calls, which is what an intruder
// without code of his own uses; the program and its other libraries have those that they were written to make.
func carrier(i Import) Vote {
	switch i.Carrier {
	case Imports:
		what := i.Symbol
		if what == "" {
			what = "a function that makes it"
		}
		return Vote{Stance: For, Points: carried, Why: object(i.Object) + " imports " + what}
	case Contains:
		return Vote{Stance: For, Points: carried, Why: object(i.Object) + " contains the instruction that makes it"}
	case None:
		return Vote{Stance: Against, Why: fmt.Sprintf("none of %d mapped objects besides the C library needs it", i.Objects)}
	}
	why := "which program or library needs it was not read"
	if i.Why != "" {
		why += ": " + i.Why
	}
	return Vote{Why: why}
}

func object(path string) string {
	if path == "" {
		return "a mapped object"
	}
	return path
}
