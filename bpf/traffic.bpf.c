// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Where the new connections of one listening address go, and who may listen there beside another.
 *
 * map       key -> value                              written by     read by
 * line      slot -> a listening socket                user space     steer
 * plans     0 -> which slots get what                 user space     steer
 * shared    network namespace, port -> (nothing)      user space     share4, share6
 *
 * steer is attached to a SO_REUSEPORT group and not to the host: it runs for the SYN packets of that address only. It
 * outlives whoever attached it as long as the group lives, so that each way through it must end well when the sockets
 * it was told of are gone: it then leaves the choice to the kernel's hash over those that do listen.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MAX_SIDE 64 /* listening sockets of the owner, and of the successor */
#define SLOTS (1 + 2 * MAX_SIDE) /* ours is slot 0 */
#define SOL_SOCKET 1
#define SO_REUSEADDR 2
#define SO_REUSEPORT 15
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD

/* The first word holds both numbers, so that one store changes where connections go. */
struct plan {
	__u32 first; /* slots that get new connections */
	__u32 count;
	__u32 knock_first; /* slots that get knocks */
	__u32 knock_count;
	__u8 knock_from[16]; /* a knock's source address as it is in the packet; IPv4 in the first four bytes */
	__be16 knock_port;   /* and its source port; 0: nobody knocks */
	__be16 knock_protocol; /* ETH_P_IP or ETH_P_IPV6 */
	__u32 unused;
};

struct shared_port {
	__u64 netns; /* cookie */
	__u32 port;  /* network byte order, as bpf_sock_addr has it */
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} line SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct plan);
} plans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SIDE);
	__type(key, struct shared_port);
	__type(value, __u8);
} shared SEC(".maps");

/* Any socket of the range, evenly; the next one when the first choice has closed. 0: none is left. */
static __always_inline int choose(struct sk_reuseport_md *ctx, __u32 first, __u32 count)
{
	__u32 at, slot;

	if (!count || count > MAX_SIDE)
		return 0;
	at = bpf_get_prandom_u32() % count;
	for (__u32 i = 0; i < MAX_SIDE; i++) {
		if (i >= count)
			break;
		slot = first + (at + i) % count;
		if (!bpf_sk_select_reuseport(ctx, &line, &slot, 0))
			return 1;
	}
	return 0;
}

/*
 * sk_reuseport_md has no mark, so that a knock is known by where it comes from: an address of this namespace and a port
 * that the one who knocks has bound, which nobody else can connect from meanwhile.
 */
static __always_inline int knocks(struct sk_reuseport_md *ctx, const struct plan *p)
{
	__u8 from[16] = {};
	__be16 port;

	if (!p->knock_port || ctx->migrating_sk)
		return 0;
	if (bpf_skb_load_bytes(ctx, 0, &port, sizeof(port)) || port != p->knock_port)
		return 0;
	if ((__be16)ctx->eth_protocol != p->knock_protocol)
		return 0;
	if (p->knock_protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes_relative(ctx, 12, from, 4, BPF_HDR_START_NET))
			return 0;
	} else if (bpf_skb_load_bytes_relative(ctx, 8, from, 16, BPF_HDR_START_NET)) {
		return 0;
	}
	for (int i = 0; i < 16; i++)
		if (from[i] != p->knock_from[i])
			return 0;
	return 1;
}

/* Attached as SELECT_OR_MIGRATE: it is asked as well for what waits in a socket of the group that closes. */
SEC("sk_reuseport/migrate")
int steer(struct sk_reuseport_md *ctx)
{
	__u32 zero = 0, ours = 0;
	struct plan *p = bpf_map_lookup_elem(&plans, &zero);

	if (!p)
		return SK_PASS;
	if (knocks(ctx, p) && choose(ctx, p->knock_first, p->knock_count))
		return SK_PASS;
	if (choose(ctx, p->first, p->count))
		return SK_PASS;
	/* Nobody who should serve does: they wait. Without ours SK_PASS alone is the kernel's hash; never SK_DROP. */
	bpf_sk_select_reuseport(ctx, &line, &ours, 0);
	return SK_PASS;
}

/* A socket that is about to bind a shared port is given the options that let it. Never refuses the bind. */
static __always_inline int share(struct bpf_sock_addr *ctx)
{
	struct shared_port key = {};
	int on = 1;

	if (ctx->type != SOCK_STREAM || ctx->protocol != IPPROTO_TCP)
		return 1;
	key.netns = bpf_get_netns_cookie(ctx);
	key.port = ctx->user_port;
	if (!bpf_map_lookup_elem(&shared, &key))
		return 1;
	bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return 1;
}

SEC("cgroup/bind4")
int share4(struct bpf_sock_addr *ctx)
{
	return share(ctx);
}

SEC("cgroup/bind6")
int share6(struct bpf_sock_addr *ctx)
{
	return share(ctx);
}
