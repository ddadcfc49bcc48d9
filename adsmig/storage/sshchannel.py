"""An SSH channel whose packets go straight to the thread that uses it.

paramiko agrees on keys, logs in and opens the channel, in a thread of its own that reads every
packet.  To hand bulk data over from there costs more than all else about it, so from then on the
user of the channel reads and writes packets itself, and that thread gets only what is not for the
channel: new keys, requests of the server, its farewell.  The packets are those of RFC 4253 and
RFC 4254, under AES-GCM as RFC 5647 and OpenSSH's PROTOCOL (1.6) have it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from cryptography.exceptions import InvalidTag
from paramiko import Channel, Message, SSHException, Transport
from paramiko.packet import Packetizer

WINDOW = 16 << 20
"""Bytes that a server may send before we take them.  More than is ever asked for at once, so that
it never waits for us while we wait for it."""
LONG_PACKET = 128 << 10
"""Bytes of content that a server may send in one packet."""
PLAIN_PACKET = 32704
"""Bytes that paramiko puts in a packet of 32 KiB."""
MOST_AT_ONCE = 512 << 10
"""Bytes that are sent in one call, of as many packets as that takes."""
MOST_BYTES = 32 << 30
"""Bytes after which a connection is worn: one key is not to encrypt more than 2^32 blocks
(RFC 4344, 3.2), and we ask for no new ones."""

_KEXINIT, _NEWKEYS = 20, 21
_ADJUST, _DATA, _EXTENDED_DATA, _EOF, _CLOSE, _SUCCESS = 93, 94, 95, 96, 97, 99
_BLOCK, _TAG = 16, 16
_BUFFER = 512 << 10
_IDLE_S = 5.0
"""After so long without its user, a channel is read all the same: servers want to be answered."""
_U32 = struct.Struct(">I")
_TWO = struct.Struct(">II")


class Packets(Packetizer):
    """The packets of one connection.

    All as paramiko has it, until the server has granted a channel's request under AES-GCM; from
    then on ``direct`` is true, and only who holds ``reading`` takes packets.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.direct = False
        self.bytes = 0
        """Sent and received, since it is direct."""
        self.reading = threading.Lock()
        self.channel: DirectChannel | None = None
        self._socket = sock
        self._opener: _Cipher | None = None
        self._sealer: _Cipher | None = None
        self._buffer = memoryview(b"")
        self._at = self._end = 0
        self._number = 0  # of the packet taken last
        self._writing = threading.Lock()
        self._turn = threading.Condition()
        self._passed: bytes | None = None
        self._waiting = self._holding = self._exchanging = False

    # What paramiko's thread calls

    def set_inbound_cipher(self, *args: Any, **kwargs: Any) -> None:
        """See Packetizer."""
        super().set_inbound_cipher(*args, **kwargs)
        self._opener = _cipher(kwargs["block_engine"], kwargs.get("iv_in"), self.direct)

    def set_outbound_cipher(self, *args: Any, **kwargs: Any) -> None:
        """See Packetizer."""
        super().set_outbound_cipher(*args, **kwargs)
        self._sealer = _cipher(kwargs["block_engine"], kwargs.get("iv_out"), self.direct)

    def reset_seqno_in(self) -> None:
        """See Packetizer."""
        super().reset_seqno_in()
        self._number = -1

    def read_message(self) -> tuple[int, Message]:
        """See Packetizer."""
        if self.direct:
            payload = self._next_of_thread()
            message = Message(payload[1:])
            message.seqno = self._number
            return payload[0], message
        kind, message = super().read_message()
        if self._opener and self._sealer:
            self._opener.count += 1
            if kind == _SUCCESS:
                self._number = message.seqno
                self._buffer = memoryview(bytearray(_BUFFER))
                self.direct = True
        return kind, message

    def send_message(self, data: Message) -> None:
        """See Packetizer."""
        if self.direct:
            self.send((data.asbytes(),))
            return
        with self._writing:
            super().send_message(data)
            if self._sealer:
                self._sealer.count += 1
        # What a server answers in two packets, it waits with the second of until we acknowledge
        # the first, for which the kernel would take 40 ms after we sent something (tcp(7)).
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def close(self) -> None:
        """See Packetizer.  Whoever waits, or is about to, finds out."""
        super().close()
        with self._turn:
            self._turn.notify_all()

    def _next_of_thread(self) -> bytes:
        """The next packet that is paramiko's to deal with: passed on, or found when nobody reads.

        In the latter case nobody else is to read, or to send, until it was dealt with; if it was
        about new keys, until they are agreed upon.
        """
        if self._holding:
            if self._exchanging:
                with self._released_if_lost():
                    return self._noted(bytes(self.take()))
            self._holding = False
            self.reading.release()
        with self._turn:
            self._waiting = True
            self._turn.notify_all()
            while self._passed is None:
                if self.closed:
                    raise EOFError
                number = self._number
                self._turn.wait(_IDLE_S)
                idle = self._passed is None and self._number == number
                if idle and self.channel and self.reading.acquire(blocking=False):
                    with self._released_if_lost():
                        found = self.channel.take_what_came()
                    if found is not None:
                        self._holding = True
                        return self._noted(found)
                    self.reading.release()
            payload, self._passed, self._waiting = self._passed, None, False
            return payload

    @contextlib.contextmanager
    def _released_if_lost(self) -> Iterator[None]:
        """For who took the user's place: this thread ends when the server has left, and the user is
        to find that out, not to wait for it.
        """
        try:
            yield
        except BaseException:
            self._holding = False
            self.reading.release()
            raise

    def _noted(self, payload: bytes) -> bytes:
        if payload[0] in (_KEXINIT, _NEWKEYS):
            self._exchanging = payload[0] == _KEXINIT
        return payload

    # What the channel calls

    def pass_on(self, payload: bytes) -> None:
        """Lets paramiko's thread deal with a packet; returns when it has."""
        with self._turn:
            self._passed, self._waiting = payload, False
            self._turn.notify_all()
            while not self._waiting and not self.closed:
                self._turn.wait(1.0)
        if self.closed:
            raise EOFError

    def take(self) -> memoryview:
        """The payload of the next packet; its first byte tells the kind.

        Raises EOFError, OSError (TimeoutError if nothing came in the socket's time), and
        SSHException for what is no packet.
        """
        opener = self._opener
        assert opener is not None
        while True:
            have = self._end - self._at
            if have >= 4:
                (size,) = _U32.unpack_from(self._buffer, self._at)
                if not _BLOCK <= size <= LONG_PACKET + 1024:
                    raise SSHException("a packet of an impossible size")
                if have >= 4 + size + _TAG:
                    break
            self._fill()
        start, end = self._at + 4, self._at + 4 + size + _TAG
        plain = opener.open(self._buffer[start:end], bytes(self._buffer[self._at : start]))
        self._at = end
        self._number = (self._number + 1) & 0xFFFFFFFF
        self.bytes += size
        if plain[0] + 2 > size:
            raise SSHException("a packet that is nothing but padding")
        return memoryview(plain)[1 : size - plain[0]]

    def arrived(self) -> bool:
        """Whether there is something to take."""
        if self._end - self._at >= 4:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def _fill(self) -> None:
        if len(self._buffer) - self._at < LONG_PACKET + 2048 or self._at == self._end:
            have = self._end - self._at
            self._buffer[:have] = bytes(self._buffer[self._at : self._end])
            self._at, self._end = 0, have
        count = self._socket.recv_into(self._buffer[self._end :])
        if not count:
            raise EOFError
        self._end += count

    def send(self, *payloads: tuple[bytes | memoryview, ...]) -> None:
        """Sends packets, each made of some pieces, at once; raises as :meth:`take` does."""
        pieces = list[bytes]()
        with self._writing:
            assert self._sealer is not None
            for payload in payloads:
                size = 1 + sum(map(len, payload))
                padding = _BLOCK - size % _BLOCK
                if padding < 4:  # RFC 4253, 6
                    padding += _BLOCK
                size += padding
                plain = b"".join((bytes((padding,)), *payload, os.urandom(padding)))
                head = _U32.pack(size)
                pieces += (head, self._sealer.seal(plain, head))
                self.bytes += size
            left = sum(map(len, pieces)) - self._socket.sendmsg(pieces)
            if left:
                self._socket.sendall(b"".join(pieces)[-left:])


class _Cipher:
    """AES-GCM in one direction: each packet has the next nonce."""

    def __init__(self, engine: Any, nonce: bytes) -> None:
        self._engine, self._fixed = engine, nonce[:4]
        self.count = int.from_bytes(nonce[4:], "big")

    def _nonce(self) -> bytes:
        nonce = self._fixed + self.count.to_bytes(8, "big")
        self.count = (self.count + 1) & 0xFFFFFFFFFFFFFFFF
        return nonce

    def seal(self, plain: bytes, head: bytes) -> bytes:
        sealed: bytes = self._engine.encrypt(self._nonce(), plain, head)
        return sealed

    def open(self, sealed: memoryview, head: bytes) -> bytes:
        try:
            plain: bytes = self._engine.decrypt(self._nonce(), sealed, head)
        except InvalidTag as exc:
            raise SSHException("a packet was altered on its way") from exc
        return plain


def _cipher(engine: Any, nonce: bytes | None, needed: bool) -> _Cipher | None:
    """None if the cipher is not AES-GCM, which it has to stay once it was."""
    if nonce is None and needed:
        raise SSHException("it went over to another cipher")
    return _Cipher(engine, nonce) if nonce is not None else None


class DirectChannel:
    """A channel of one thread's, that has become direct; see Packets.

    Raises what Packets.take does.
    """

    def __init__(self, channel: Channel, packets: Packets) -> None:
        """Takes the place of ``channel``, on which nothing was received yet."""
        self._channel, self._packets = channel, packets  # the former would close, if forgotten
        self._ours = _U32.pack(channel.chanid)
        self._theirs = channel.remote_chanid
        self._room: int = channel.out_window_size
        self._most: int = channel.out_max_packet_size
        self._ready = deque[memoryview]()
        self._taken = 0
        packets.channel = self

    def recv(self, nbytes: int) -> memoryview:
        """The next bytes, however many."""
        with self._packets.reading:
            while not self._ready:
                self._advance()
            data = self._ready.popleft()
            self._taken += len(data)
            if self._taken > WINDOW // 4:
                self._packets.send((bytes((_ADJUST,)), _TWO.pack(self._theirs, self._taken)))
                self._taken = 0
        return data

    def send(self, data: bytes | memoryview) -> int:
        """Sends some of them; how many."""
        view = memoryview(data)
        with self._packets.reading:  # else the other thread might be about to agree on new keys
            while not self._room:
                self._advance()
            view = view[: min(self._room, MOST_AT_ONCE)]
            self._room -= len(view)
            pieces = (view[at : at + self._most] for at in range(0, len(view), self._most))
            kind = bytes((_DATA,))
            self._packets.send(
                *((kind, _TWO.pack(self._theirs, len(piece)), piece) for piece in pieces)
            )
        return len(view)

    @property
    def worn(self) -> bool:
        """Whether so much went through it that another connection is due."""
        return self._packets.bytes > MOST_BYTES

    def _advance(self) -> None:
        """Takes one packet, of whatever kind."""
        payload = self._packets.take()
        if not self._takes(payload):
            self._packets.pass_on(bytes(payload))

    def _takes(self, payload: memoryview) -> bool:
        """Whether a packet was the channel's."""
        kind = payload[0]
        if not (_ADJUST <= kind <= _CLOSE and payload[1:5] == self._ours):
            return False
        if kind == _DATA:
            (size,) = _U32.unpack_from(payload, 5)
            self._ready.append(payload[9 : 9 + size])
        elif kind == _ADJUST:
            self._room += _U32.unpack_from(payload, 5)[0]
        elif kind == _EXTENDED_DATA:  # what the server's program has to complain of
            self._taken += _U32.unpack_from(payload, 9)[0]
        else:
            raise EOFError
        return True

    def take_what_came(self) -> bytes | None:
        """Takes packets as long as there are any; the first that is not the channel's.

        For who holds the packets' ``reading`` in place of the channel's user.
        """
        while self._packets.arrived():
            payload = self._packets.take()
            if not self._takes(payload):
                return bytes(payload)
        return None


class PlainChannel:
    """A channel as paramiko has it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def recv(self, nbytes: int) -> bytes:
        """The next bytes, at most so many."""
        data: bytes = self._channel.recv(nbytes)
        return data

    def send(self, data: bytes | memoryview) -> int:
        """Sends some of them; how many."""
        sent: int = self._channel.send(bytes(data[:PLAIN_PACKET]))
        return sent


def direct(
    channel: Channel, transport: Transport, timeout_s: float
) -> PlainChannel | DirectChannel:
    """The channel, direct if its packets can be; it then waits ``timeout_s`` for each."""
    packets = transport.packetizer
    if isinstance(packets, Packets) and packets.direct:
        transport.sock.settimeout(timeout_s)
        return DirectChannel(channel, packets)
    return PlainChannel(channel)
