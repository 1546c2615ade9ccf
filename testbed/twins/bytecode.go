// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	"strings"

	"github.com/whittle-sec/whittle/internal/image"
)

// bytecodeScript compiles what modules need, without a date in it: an image's files have none. It prints a path and the file
// with its bytecode on each line.
const bytecodeScript = `
import importlib, os, py_compile, sys
work = sys.argv[1]
for name in sys.argv[2:]:
    importlib.import_module(name)
files = {getattr(m, '__file__', None) for m in list(sys.modules.values())}
for n, path in enumerate(sorted(f for f in files if f and f.startswith('/usr/lib/python3') and f.endswith('.py'))):
    directory, base = os.path.split(path)
    out = f'{work}/{n}.pyc'
    py_compile.compile(path, cfile=out, dfile=path, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    print(f'{directory}/__pycache__/{base[:-3]}.{sys.implementation.cache_tag}.pyc', out, sep='\t')
`

// bytecode of modules, as a package's installation leaves it: without it an application starts in seconds instead of one.
func bytecode(ctx context.Context, work string, modules []string) ([]image.File, error) {
	if len(modules) == 0 {
		return nil, nil
	}
	list, err := output(ctx, "", "/usr/bin/python3", append([]string{"-I", "-B", "-c", bytecodeScript, work}, modules...)...)
	if err != nil {
		return nil, err
	}
	var out []image.File
	for line := range strings.Lines(list) {
		path, source, _ := strings.Cut(strings.TrimSpace(line), "\t")
		f, err := image.Host(source, path)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}
