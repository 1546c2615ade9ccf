// SPDX-License-Identifier: Apache-2.0

package elfcalls

// beyond are the functions whose calls their name does not tell. The rows were written from glibc's sources (2.31 to 2.41:
// sysdeps/unix/sysv/linux, nptl, io, posix, resolv, inet) and musl's (1.2: src), and TestTableAgainstLibc holds them
// against the C library of the machine: a function that makes a call itself must have it here. Calls are named as on any
// ABI; those that an ABI lacks fall out. What a function does only on errors (abort, messages) or when it is cancelled
// is not in it. A function may stand in several rows.
var beyond = []struct{ calls, functions string }{
	// Memory. malloc grows the heap, maps what is large, and gives its arenas' pages their protection.
	{"brk mmap mmap2 munmap mremap madvise mprotect", `
		malloc calloc realloc reallocarray free posix_memalign aligned_alloc memalign valloc pvalloc malloc_trim cfree
		_Znwm _Znam _Znwj _Znaj _ZdlPv _ZdaPv strdup strndup asprintf vasprintf getline getdelim open_memstream`},
	{"brk", "sbrk brk"},
	{"mmap mmap2", "mmap mmap64"},
	{"pkey_mprotect mprotect", "pkey_mprotect"},
	{"futex", `
		pthread_mutex_lock pthread_mutex_unlock pthread_mutex_timedlock pthread_mutex_clocklock pthread_cond_wait
		pthread_cond_timedwait pthread_cond_clockwait pthread_cond_signal pthread_cond_broadcast pthread_cond_destroy
		pthread_rwlock_rdlock pthread_rwlock_wrlock pthread_rwlock_unlock pthread_rwlock_timedrdlock
		pthread_rwlock_timedwrlock pthread_barrier_wait pthread_barrier_destroy pthread_once pthread_spin_lock
		sem_wait sem_timedwait sem_clockwait sem_post pthread_join pthread_timedjoin_np pthread_tryjoin_np
		cnd_wait cnd_timedwait cnd_signal cnd_broadcast mtx_lock mtx_timedlock mtx_unlock call_once thrd_join
		__cxa_guard_acquire __cxa_guard_release pthread_mutex_destroy pthread_mutex_trylock pthread_mutex_init
		pthread_mutex_setprioceiling pthread_exit pthread_rwlock_tryrdlock pthread_rwlock_trywrlock
		pthread_rwlock_clockrdlock pthread_rwlock_clockwrlock lll_lock_wait_private lll_lock_wake_private`},

	// Processes and threads.
	{"fork clone rseq set_robust_list", "fork Fork"},
	{"vfork clone", "vfork"},
	{"clone exit", "clone"},
	{"clone clone3 vfork execve wait4 rt_sigprocmask rt_sigaction mmap munmap", "posix_spawn posix_spawnp system"},
	{"clone clone3 vfork execve pipe2 pipe fcntl close dup2 wait4 rt_sigprocmask rt_sigaction mmap munmap", "popen _IO_popen _IO_proc_open"},
	{"wait4 close", "pclose _IO_proc_close"},
	{"clone fork setsid open openat dup2 dup3 close newfstatat fstat exit_group", "daemon"},
	{"clone setsid setpgid open openat dup2 dup3 ioctl close", "forkpty login_tty"},
	{"clone clone3 mmap munmap mprotect set_robust_list rseq rt_sigprocmask rt_sigaction madvise exit sched_setaffinity sched_setscheduler sched_getparam sched_getscheduler futex gettid", `
		pthread_create thrd_create _ZNSt6thread15_M_start_threadESt10unique_ptrINS_6_StateESt14default_deleteIS1_EEPFvvE`},
	{"execve", "execv execvp execvpe execl execlp execle"},
	{"execve execveat", "fexecve"},
	{"execveat", "execveat"},
	{"wait4 waitpid waitid", "wait waitpid wait3 wait4 waitid"},
	{"exit_group exit", "exit _exit _Exit quick_exit thrd_exit err errx verr verrx"},
	{"rt_sigprocmask gettid getpid tkill tgkill rt_sigaction exit_group", "abort raise gsignal"},
	{"tgkill tkill getpid", "pthread_kill pthread_cancel tgkill"},
	{"kill", "kill killpg"},
	{"rt_sigqueueinfo getpid getuid", "sigqueue"},
	{"rt_tgsigqueueinfo getpid getuid", "pthread_sigqueue"},
	{"rt_sigaction sigaction", "signal sigaction sigset sigignore bsd_signal sysv_signal siginterrupt ssignal"},
	{"rt_sigprocmask sigprocmask", `
		sigprocmask pthread_sigmask sighold sigrelse sigblock sigsetmask sigset sigsetjmp siglongjmp longjmp _longjmp
		getcontext setcontext swapcontext`},
	{"rt_sigsuspend sigsuspend", "sigsuspend sigpause"},
	{"pause rt_sigsuspend ppoll", "pause"},
	{"rt_sigpending sigpending", "sigpending"},
	{"rt_sigtimedwait", "sigwait sigwaitinfo sigtimedwait"},
	{"signalfd4 signalfd", "signalfd"},
	{"eventfd2 eventfd", "eventfd"},
	{"read", "eventfd_read"},
	{"write", "eventfd_write"},
	{"sched_yield", "sched_yield pthread_yield thrd_yield"},
	{"sched_setaffinity", "pthread_setaffinity_np sched_setaffinity pthread_attr_setaffinity_np"},
	{"sched_getaffinity", `
		pthread_getaffinity_np sched_getaffinity pthread_getattr_np get_nprocs get_nprocs_conf sysconf
		_ZNSt6thread20hardware_concurrencyEv`},
	{"openat open read close", "get_nprocs get_nprocs_conf sysconf get_phys_pages get_avphys_pages getloadavg pthread_getattr_np"},
	{"sysinfo", "sysconf get_phys_pages get_avphys_pages sysinfo qsort qsort_r"},
	{"prlimit64 getrlimit ugetrlimit", "sysconf getdtablesize pthread_getattr_np"},
	{"sched_setscheduler sched_setparam sched_getparam sched_getscheduler", "pthread_setschedparam pthread_getschedparam pthread_setschedprio"},
	{"prlimit64 getrlimit ugetrlimit setrlimit", "getrlimit getrlimit64 setrlimit setrlimit64 prlimit prlimit64 ulimit vlimit"},
	{"setpriority getpriority", "nice setpriority"},
	{"getpriority", "getpriority"},
	{"prctl", "prctl pthread_setname_np"},
	{"prctl openat open read close", "pthread_getname_np"},
	{"openat open write close", "pthread_setname_np"},
	{"personality", "personality"},
	// These tell all threads, with a signal, to do the same.
	{"setuid setuid32 tgkill futex getpid", "setuid"},
	{"setgid setgid32 tgkill futex getpid", "setgid"},
	{"setresuid setresuid32 setreuid setreuid32 tgkill futex getpid", "seteuid setresuid setreuid"},
	{"setresgid setresgid32 setregid setregid32 tgkill futex getpid", "setegid setresgid setregid"},
	{"setgroups setgroups32 tgkill futex getpid", "setgroups"},
	{"setgroups setgroups32 socket connect openat open read lseek close newfstatat fstat sendto poll", "initgroups"},
	{"getuid getuid32", "getuid"}, {"geteuid geteuid32", "geteuid"}, {"getgid getgid32", "getgid"}, {"getegid getegid32", "getegid"},
	{"getresuid getresuid32", "getresuid"}, {"getresgid getresgid32", "getresgid"}, {"getgroups getgroups32", "getgroups group_member"},
	{"setfsuid setfsuid32", "setfsuid"}, {"setfsgid setfsgid32", "setfsgid"},
	{"getpgrp getpgid", "getpgrp getpgid"},
	{"setpgid", "setpgrp setpgid"},
	{"getpid", "getpid"},
	{"gettid", "gettid"},

	// Time. The vDSO does the first of these without a call where it can.
	{"clock_gettime clock_gettime64", "clock_gettime timespec_get clock ftime"},
	{"gettimeofday clock_gettime clock_gettime64", "gettimeofday _ZNSt6chrono3_V212system_clock3nowEv _ZNSt6chrono3_V212steady_clock3nowEv"},
	{"time clock_gettime clock_gettime64", "time"},
	{"clock_getres clock_getres_time64", "clock_getres timespec_getres clock_getcpuclockid pthread_getcpuclockid"},
	{"getcpu", "sched_getcpu getcpu"},
	{"clock_settime clock_settime64", "clock_settime stime settimeofday"},
	{"settimeofday", "settimeofday"},
	{"adjtimex clock_adjtime clock_adjtime64", "adjtime adjtimex ntp_adjtime ntp_gettime ntp_gettimex clock_adjtime"},
	{"clock_nanosleep clock_nanosleep_time64 nanosleep", "sleep usleep nanosleep clock_nanosleep thrd_sleep _ZNSt11this_thread11__sleep_forENSt6chrono8durationIlSt5ratioILl1ELl1EEEENS1_IlS2_ILl1ELl1000000000EEEE"},
	{"setitimer", "alarm ualarm setitimer"},
	{"alarm", "alarm"},
	{"getitimer", "getitimer"},
	{"getrusage times clock_gettime", "times getrusage clock vtimes"},
	{"timer_create clone clone3 rt_sigprocmask mmap mprotect futex rt_sigtimedwait", "timer_create"},
	{"timer_settime timer_settime64", "timer_settime"},
	{"timer_gettime timer_gettime64", "timer_gettime"},
	{"timerfd_settime timerfd_settime64", "timerfd_settime"},
	{"timerfd_gettime timerfd_gettime64", "timerfd_gettime"},
	// The first use of local time reads the zone.
	{"openat open read newfstatat fstat stat lseek close", `
		localtime localtime_r mktime tzset strftime ctime ctime_r wcsftime timelocal`},

	// Files by path.
	{"open openat", "open open64 openat openat64 creat creat64"},
	{"creat", "creat creat64"},
	{"open openat fcntl", "fopen fopen64 freopen freopen64 _IO_fopen _IO_file_fopen _IO_file_open"},
	{"close dup3 dup2", "freopen freopen64"},
	{"fcntl newfstatat", "fdopen _IO_fdopen"},
	{"close munmap write", "fclose _IO_fclose _IO_file_close_it"},
	{"open openat newfstatat fstat statx", "opendir"},
	{"fcntl newfstatat fstat", "fdopendir"},
	{"getdents64 getdents", "readdir readdir64 readdir_r readdir64_r getdents64 getdents posix_getdents getdirentries getdirentries64"},
	{"lseek", "rewinddir seekdir telldir"},
	{"close", "closedir"},
	{"open openat getdents64 close newfstatat fstat lstat stat statx fcntl", `
		scandir scandir64 scandirat scandirat64 glob glob64 ftw ftw64 nftw nftw64 fts_open fts_read fts_children wordexp getcwd`},
	{"fchdir chdir open openat", "nftw nftw64 fts_open fts_read fts_close fts_children"},
	{"clone clone3 vfork execve pipe2 pipe wait4", "wordexp"},
	{"getcwd", "getcwd get_current_dir_name getwd realpath canonicalize_file_name"},
	{"readlink readlinkat lstat newfstatat statx", "realpath canonicalize_file_name"},
	{"stat newfstatat statx stat64 fstatat64", "stat stat64 __xstat __xstat64"},
	{"lstat newfstatat statx lstat64 fstatat64", "lstat lstat64 __lxstat __lxstat64"},
	{"fstat newfstatat statx fstat64 fstatat64", "fstat fstat64 __fxstat __fxstat64"},
	{"newfstatat statx fstatat64", "fstatat fstatat64 __fxstatat __fxstatat64"},
	{"access faccessat faccessat2", "access eaccess euidaccess faccessat"},
	{"newfstatat fstatat64", "eaccess euidaccess faccessat"},
	{"chmod fchmodat", "chmod"},
	{"fchmodat fchmodat2 chmod openat readlink", "fchmodat lchmod"},
	{"fchmod", "fchmod"},
	{"chown fchownat chown32", "chown"},
	{"lchown fchownat lchown32", "lchown"},
	{"fchown fchown32", "fchown"},
	{"utimensat utimensat_time64 utime utimes futimesat", "utime utimes futimes lutimes futimens futimesat utimensat"},
	{"mkdir mkdirat", "mkdir"},
	{"mknod mknodat", "mknod mkfifo mkfifoat mknodat __xmknod __xmknodat"},
	{"link linkat", "link"},
	{"symlink symlinkat", "symlink"},
	{"readlink readlinkat", "readlink readlinkat"},
	{"rename renameat renameat2", "rename renameat"},
	{"unlink unlinkat", "unlink"},
	{"rmdir unlinkat", "rmdir"},
	{"unlink unlinkat rmdir", "remove"},
	{"openat open getrandom unlink", "mkstemp mkstemp64 mkostemp mkostemp64 mkstemps mkstemps64 mkostemps mkostemps64 tmpfile tmpfile64"},
	{"openat open fcntl", "tmpfile tmpfile64"},
	{"mkdir mkdirat getrandom", "mkdtemp"},
	{"lstat newfstatat access statx getrandom", "mktemp tempnam tmpnam tmpnam_r"},
	{"statfs statfs64", "statfs statvfs pathconf"},
	{"fstatfs fstatfs64", "fstatfs fstatvfs fpathconf"},
	{"openat open read newfstatat", "statvfs fstatvfs"},
	{"truncate truncate64", "truncate"},
	{"umount umount2", "umount umount2"},
	{"openat open read write lseek fcntl close newfstatat fstat", "setmntent getmntent getmntent_r addmntent endmntent getfsent getfsfile getttyent"},
	{"open openat ftruncate unlink", "shm_open"},
	{"unlink unlinkat", "shm_unlink sem_unlink"},
	{"open openat mmap mmap2 munmap write link linkat unlink unlinkat newfstatat fstat lstat getrandom close", "sem_open"},
	{"munmap", "sem_close"},
	{"mq_open", "mq_open"}, {"close", "mq_close"}, {"mlock2 mlock", "mlock2"},
	{"mq_timedsend mq_timedsend_time64", "mq_send mq_timedsend"},
	{"mq_timedreceive mq_timedreceive_time64", "mq_receive mq_timedreceive"},
	{"mq_notify socket recvfrom", "mq_notify"},
	{"mq_getsetattr", "mq_getattr mq_setattr"},
	{"inotify_init1 inotify_init", "inotify_init inotify_init1"},

	// Streams and descriptors.
	{"write writev", `
		printf fprintf vprintf vfprintf dprintf vdprintf puts fputs fputs_unlocked putc fputc putchar fwrite
		fwrite_unlocked fflush fflush_unlocked perror psignal psiginfo putc_unlocked putchar_unlocked putw
		wprintf fwprintf vfwprintf vwprintf fputwc fputws putwc warn warnx vwarn vwarnx err errx verr verrx error error_at_line
		__overflow _IO_putc _IO_puts _IO_file_write __printf_chk __fprintf_chk __vfprintf_chk fcloseall herror
		backtrace_symbols_fd _IO_do_write _IO_file_overflow _IO_file_xsputn
		_ZSt16__ostream_insertIcSt11char_traitsIcEERSt13basic_ostreamIT_T0_ES6_PKS3_l _ZNSo5flushEv _ZNSo3putEc _ZNSo5writeEPKcl`},
	{"newfstatat fstat ioctl", "printf puts fputs fwrite fread fgets fopen getc fgetc putchar fputc getline setlinebuf"},
	{"read readv", `
		fread fread_unlocked fgets fgets_unlocked getc fgetc getchar getc_unlocked fgetc_unlocked getchar_unlocked gets
		scanf fscanf vscanf vfscanf __isoc99_scanf __isoc99_fscanf __isoc23_scanf __isoc23_fscanf __isoc99_vfscanf
		__isoc23_vfscanf getline getdelim getw fgetwc fgetws getwc wscanf fwscanf __uflow _IO_getc _IO_file_read
		_IO_file_underflow _IO_file_xsgetn`},
	{"lseek _llseek", "lseek lseek64 llseek fseek fseeko fseeko64 ftell ftello ftello64 rewind fgetpos fsetpos fgetpos64 fsetpos64 fflush fclose"},
	{"pread64", "pread pread64"},
	{"pwrite64", "pwrite pwrite64"},
	{"preadv", "preadv preadv64"},
	{"pwritev", "pwritev pwritev64"},
	{"preadv2 preadv", "preadv2 preadv64v2"},
	{"pwritev2 pwritev", "pwritev2 pwritev64v2"},
	{"sendfile sendfile64", "sendfile sendfile64"},
	{"fcntl fcntl64", "fcntl fcntl64 lockf lockf64"},
	{"fadvise64 fadvise64_64", "posix_fadvise posix_fadvise64"},
	{"fallocate", "fallocate fallocate64"},
	{"fallocate pwrite64 fstatfs newfstatat fstat pread64 fcntl", "posix_fallocate posix_fallocate64"},
	{"madvise", "posix_madvise madvise"},
	{"ftruncate ftruncate64", "ftruncate"},
	{"dup2 dup3", "dup2 dup3"},
	{"pipe pipe2", "pipe pipe2"},
	{"poll ppoll ppoll_time64", "poll ppoll"},
	{"select _newselect pselect6 pselect6_time64", "select pselect"},
	{"epoll_create epoll_create1", "epoll_create epoll_create1"},
	{"epoll_wait epoll_pwait epoll_pwait2", "epoll_wait epoll_pwait epoll_pwait2"},
	// glibc's aio runs in threads of its own.
	{"clone clone3 mmap mprotect futex rt_sigprocmask pread64 pwrite64 fsync fdatasync", "aio_read aio_write aio_fsync lio_listio aio_suspend"},
	// libaio's functions have no names of calls.
	{"io_setup", "io_queue_init"}, {"io_destroy", "io_queue_release"}, {"io_getevents", "io_queue_wait io_queue_run"},
	// liburing.
	{"io_uring_setup mmap munmap close", "io_uring_queue_init io_uring_queue_init_params io_uring_queue_init_mem io_uring_queue_exit"},
	{"io_uring_enter", "io_uring_submit io_uring_submit_and_wait io_uring_wait_cqes __io_uring_get_cqe io_uring_submit_and_wait_timeout"},
	{"io_uring_register", "io_uring_register_files io_uring_register_buffers io_uring_unregister_files io_uring_unregister_buffers io_uring_get_probe"},

	// Terminals and devices.
	{"ioctl", `
		ioctl isatty tcgetattr tcsetattr tcgetpgrp tcsetpgrp tcsendbreak tcdrain tcflow tcflush tcgetsid cfsetspeed
		ttyname ttyname_r ptsname ptsname_r unlockpt grantpt openpty sockatmark if_nametoindex if_indextoname
		tcgetwinsize tcsetwinsize stty gtty getpass`},
	{"open openat", "posix_openpt getpt openpty getpass"},
	{"readlink newfstatat fstat stat getdents64", "ttyname ttyname_r"},
	{"socket close", "if_nametoindex if_indextoname if_nameindex getifaddrs"},
	{"bind sendto recvmsg getsockname", "if_nameindex getifaddrs"},
	{"open openat ioctl read lseek fcntl close", "ctermid cuserid getlogin getlogin_r setutent getutent getutxent pututline pututxline utmpname updwtmp updwtmpx getutxline setutxent"},
	{"alarm setitimer rt_sigaction fcntl write", "pututline pututxline updwtmp updwtmpx logwtmp login logout"},

	// Sockets.
	{"socket bind connect sendto sendmmsg sendmsg recvfrom recvmsg poll ppoll ioctl setsockopt getsockname getpeername openat open read newfstatat fstat stat lseek close uname mmap munmap getpid", `
		getaddrinfo gethostbyname gethostbyname_r gethostbyname2 gethostbyname2_r gethostbyaddr gethostbyaddr_r getnameinfo
		getaddrinfo_a res_query res_nquery res_search res_nsearch res_send res_nsend __res_query __res_search __res_nquery
		__res_nsearch __res_send __res_nsend`},
	{"openat open read newfstatat fstat uname gettimeofday", "res_init res_ninit __res_init __res_ninit"},
	{"clone clone3 mmap mprotect futex", "getaddrinfo_a"},
	{"sendto", "send sendto"},
	{"recvfrom", "recv recvfrom"},
	{"accept accept4", "accept accept4"},
	{"sendmmsg sendmsg", "sendmmsg"},
	{"recvmmsg recvmmsg_time64 recvmsg", "recvmmsg"},
	{"socket connect sendto close getpid", "syslog vsyslog __syslog_chk __vsyslog_chk openlog closelog"},
	{"write", "syslog vsyslog"},
	{"syslog", "klogctl"},
	{"bind getsockname", "bindresvport"},
	{"uname", "uname gethostname getdomainname gethostid"},
	{"sethostname", "sethostname"},
	{"openat open read close newfstatat fstat", "gethostid"},
	// Names of users, groups, services: files, or a daemon behind a socket.
	{"socket connect openat open read newfstatat fstat lseek close sendto poll recvmsg mmap munmap", `
		getpwnam getpwnam_r getpwuid getpwuid_r getpwent getpwent_r setpwent endpwent getgrnam getgrnam_r getgrgid
		getgrgid_r getgrent getgrent_r setgrent endgrent getgrouplist getservbyname getservbyname_r getservbyport
		getservbyport_r getservent getprotobyname getprotobyname_r getprotobynumber getprotobynumber_r getnetbyname
		getspnam getspnam_r getspent innetgr fgetpwent fgetgrent putpwent sgetspent getnetgrent setnetgrent`},
	{"openat open fcntl close rt_sigaction alarm", "lckpwdf ulckpwdf"},

	// The loader and what it loads.
	{"openat open read newfstatat fstat pread64 mmap mmap2 mprotect close getcwd munmap", `
		dlopen dlmopen iconv_open iconv setlocale newlocale bindtextdomain dcgettext gettext dgettext ngettext catopen
		nl_langinfo`},
	{"munmap", "dlclose freelocale catclose iconv_close"},

	// System V, keys of the machine and the rest.
	{"getrandom", "getrandom getentropy arc4random arc4random_buf arc4random_uniform uuid_generate uuid_generate_random _ZNSt13random_device7_M_initERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"},
	{"shmat", "shmat"}, {"shmget newfstatat", "ftok shmget"},
	{"stat newfstatat", "ftok"},
	{"semop semtimedop", "semop semtimedop"},
	{"reboot", "reboot"},
	{"quotactl", "quotactl"},
	{"ptrace", "ptrace"},
	{"capget", "cap_get_proc cap_get_pid capgetp"}, {"capset", "cap_set_proc capsetp"}, // libcap
	{"prctl", "cap_get_bound cap_drop_bound cap_set_ambient cap_get_ambient cap_set_secbits cap_prctl"},
	{"seccomp prctl", "seccomp_load"},                      // libseccomp
	{"mbind", "numa_tonode_memory numa_interleave_memory"}, // libnuma
	{"set_mempolicy", "numa_set_membind numa_set_interleave_mask numa_set_localalloc numa_set_preferred numa_set_strict"},
	{"sched_setaffinity", "numa_run_on_node numa_run_on_node_mask numa_bind"},
	{"get_mempolicy", "numa_available numa_get_membind numa_preferred"},
	{"setxattr lsetxattr fsetxattr", "acl_set_file acl_set_fd setfilecon lsetfilecon fsetfilecon"}, // libacl, libselinux
	{"getxattr lgetxattr fgetxattr", "acl_get_file acl_get_fd getfilecon lgetfilecon fgetfilecon acl_extended_file"},
	{"name_to_handle_at", "name_to_handle_at"},
	{"membarrier", "membarrier"},
	{"pidfd_open", "pidfd_open"},
}
