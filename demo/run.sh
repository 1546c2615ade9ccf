#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what the demo needs, builds it, and becomes it: the program below cleans up after itself, also after Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
	echo 'whittle: error: the demo needs root: it loads BPF programs and starts containers' >&2
	echo 'whittle: hint: sudo make demo' >&2
	exit 1
fi
# sudo leaves /usr/local/go/bin out of the path.
command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
scripts/deps demo
make --no-print-directory build
CGO_ENABLED=0 go build -trimpath -o bin/demo ./demo
exec bin/demo -whittle bin/whittle
