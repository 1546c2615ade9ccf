/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the calls with the numbers given, each with arguments that let it do nothing, and exits with exit_group. Built with
 * -m64 or -m32; without libc, so that it makes no other call.
 */
static const int numbers[] = { NUMBERS };

static long call(long nr)
{
	long ret;
#ifdef __x86_64__
	register long r10 __asm__("r10") = -1, r8 __asm__("r8") = -1, r9 __asm__("r9") = -1;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(-1), "S"(-1), "d"(-1), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
#else
	__asm__ volatile("push %%ebp; mov $-1, %%ebp; int $0x80; pop %%ebp" : "=a"(ret)
			 : "a"(nr), "b"(-1), "c"(-1), "d"(-1), "S"(-1), "D"(-1) : "memory");
#endif
	return ret;
}

void _start(void)
{
	for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		call(numbers[i]);
#ifdef __x86_64__
	__asm__ volatile("syscall" : : "a"(231), "D"(0) : "rcx", "r11", "memory");
#else
	__asm__ volatile("int $0x80" : : "a"(252), "b"(0) : "memory");
#endif
	__builtin_unreachable();
}
