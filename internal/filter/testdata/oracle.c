// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Compiles rules with libseccomp. Standard input has one rule a line: its action, its number, how many conditions, and for
// each the argument's index, a mask and a value. The program goes to standard output. argv[1] is the optimisation level.

#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char *what, int rc)
{
	fprintf(stderr, "%s: %d\n", what, rc);
	return 1;
}

int main(int argc, char **argv)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	unsigned int action, count, index;
	int nr, rc;

	if (!ctx || argc != 2)
		return fail("init", argc);
	if ((rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS))))
		return fail("bad architecture", rc);
	if ((rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, atoi(argv[1]))))
		return fail("optimise", rc);
	while (scanf("%u %d %u", &action, &nr, &count) == 3) {
		struct scmp_arg_cmp cmp[6];

		for (unsigned int i = 0; i < count; i++) {
			uint64_t mask, value;

			if (i >= 6 || scanf("%u %" SCNu64 " %" SCNu64, &index, &mask, &value) != 3)
				return fail("condition", nr);
			cmp[i] = (struct scmp_arg_cmp){ index, SCMP_CMP_MASKED_EQ, mask, value };
		}
		if ((rc = seccomp_rule_add_exact_array(ctx, action, nr, count, cmp)))
			return fail("rule", rc);
	}
	if (!feof(stdin))
		return fail("read", 0);
	if ((rc = seccomp_export_bpf(ctx, 1)))
		return fail("export", rc);
	seccomp_release(ctx);
	return 0;
}
