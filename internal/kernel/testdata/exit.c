/* SPDX-License-Identifier: Apache-2.0 */
/* Makes exactly one call. */
void _start(void)
{
	__asm__ volatile("syscall" : : "a"(60), "D"(0) : "rcx", "r11", "memory");
}
