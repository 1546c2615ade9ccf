// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// The kernel's interface to packet queues, from include/uapi/linux/netfilter/nfnetlink_queue.h: what the reader
// of one queue needs of it. Headers are in the machine's byte order, contents in the
// network's.
const (
	subsystemQueue = 3 << 8 // NFNL_SUBSYS_QUEUE

	msgPacket  = subsystemQueue // | 0
	msgVerdict = subsystemQueue | 1
	msgConfig  = subsystemQueue | 2

	configCommand   = 1 // NFQA_CFG_CMD
	configParams    = 2
	configMaxLength = 3
	commandBind     = 1
	copyPacket      = 2

	attrPacketHeader  = 1 // NFQA_PACKET_HDR
	attrVerdictHeader = 2
	attrMark          = 3
	attrInDevice      = 5
	attrPayload       = 10

	verdictDrop   = 0
	verdictAccept = 1
	verdictRepeat = 4 // the hook again: all rules of the table

	messageHeader = 16 // struct nlmsghdr
	familyHeader  = 4  // struct nfgenmsg
	attrHeader    = 4  // struct nlattr
	attrTypeMask  = 0x3fff
)

type attribute struct {
	kind  uint16
	value []byte
}

// message about a queue.
func message(kind, flags, queue uint16, attributes ...attribute) []byte {
	b := make([]byte, 4, 64)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence number, port
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, queue)
	for _, a := range attributes {
		b = append(b, make([]byte, align(len(b))-len(b))...)
		b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(a.value)))
		b = binary.NativeEndian.AppendUint16(b, a.kind)
		b = append(b, a.value...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

// number in an attribute, in the network's byte order.
func number(n ...uint32) (b []byte) {
	for _, v := range n {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// messages of a datagram of the kernel: kind and content.
func messages(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= messageHeader {
			size := int(binary.NativeEndian.Uint32(b))
			if size < messageHeader || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[4:]), b[messageHeader:size]) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

func align(n int) int { return (n + 3) &^ 3 }

// packet that the kernel has put into the queue.
type packet struct {
	id      uint32
	hook    uint8
	in      uint32
	mark    uint32
	payload []byte // its beginning
}

func parsePacket(b []byte) (p packet, ok bool) {
	if len(b) < familyHeader {
		return p, false
	}
	for b = b[familyHeader:]; len(b) >= attrHeader; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < attrHeader || size > len(b) {
			return p, false
		}
		value := b[attrHeader:size]
		switch kind := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask; {
		case kind == attrPacketHeader && len(value) >= 7:
			p.id, p.hook, ok = binary.BigEndian.Uint32(value), value[6], true
		case kind == attrMark && len(value) >= 4:
			p.mark = binary.BigEndian.Uint32(value)
		case kind == attrInDevice && len(value) >= 4:
			p.in = binary.BigEndian.Uint32(value)
		case kind == attrPayload:
			p.payload = value
		}
		b = b[min(align(size), len(b)):]
	}
	return p, ok
}

// parseError is the error number of an acknowledgement; 0 is a success.
func parseError(b []byte) (unix.Errno, bool) {
	if len(b) < 4 {
		return 0, false
	}
	n := int32(binary.NativeEndian.Uint32(b))
	return unix.Errno(-n), n <= 0
}
