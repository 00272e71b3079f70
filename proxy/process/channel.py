"""A channel between supervisor and worker: framed messages, with open sockets beside them.

A stream socket pair; every frame is its length, the number of descriptors that
travel with it (SCM_RIGHTS), and the message.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from proxy.process.messages import Message, decode, encode

_FRAME = struct.Struct("!II")
MAX_MESSAGE = 64 * 1024 * 1024
MAX_DESCRIPTORS = 200
"""In one frame; the kernel's own limit is 253."""
MAX_QUEUED = 256
"""Frames that wait for a peer that does not read; then the channel is given up."""
READ = 256 * 1024

OnMessage = Callable[[Message, list[int]], None]


class Channel:
    def __init__(
        self, sock: socket.socket, on_message: OnMessage, on_closed: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_closed = on_closed
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self._queue: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._writing = False
        self.is_closed = False
        self._loop.add_reader(sock.fileno(), self._read)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Queue a message; it is sent in order, as soon as the peer reads."""
        if self.is_closed:
            return
        if len(descriptors) > MAX_DESCRIPTORS:
            raise ValueError(f"more than {MAX_DESCRIPTORS} sockets in one message")
        if len(self._queue) >= MAX_QUEUED:
            self.close()
            return
        data = encode(message)
        frame = _FRAME.pack(len(data), len(descriptors)) + data
        self._queue.append((memoryview(frame), descriptors))
        if not self._writing:
            self._write()

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.remove_reader(self._sock.fileno())
        if self._writing:
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())
        self._queue.clear()
        self._on_closed()

    def _write(self) -> None:
        while self._queue:
            data, descriptors = self._queue[0]
            try:
                if descriptors:
                    sent = socket.send_fds(self._sock, [data], list(descriptors))
                else:
                    sent = self._sock.send(data)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            if sent == len(data):
                self._queue.popleft()
            else:  # the descriptors went with the first byte
                self._queue[0] = (data[sent:], ())
        want = bool(self._queue)
        if want and not self._writing:
            self._loop.add_writer(self._sock.fileno(), self._write)
        elif self._writing and not want:
            self._loop.remove_writer(self._sock.fileno())
        self._writing = want

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, READ, MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        for fd in descriptors:
            os.set_inheritable(fd, False)  # unlike everything else that Python opens
        self._descriptors.extend(descriptors)
        if not data:
            self.close()
            return
        self._buffer += data
        while self._take():
            pass

    def _take(self) -> bool:
        """Hand one whole frame on; False when there is none."""
        if self.is_closed or len(self._buffer) < _FRAME.size:
            return False
        size, count = _FRAME.unpack_from(self._buffer)
        if size > MAX_MESSAGE:
            self.close()
            return False
        end = _FRAME.size + size
        if len(self._buffer) < end or len(self._descriptors) < count:
            return False
        body = bytes(self._buffer[_FRAME.size : end])
        del self._buffer[:end]
        try:
            message = decode(body)
        except (TypeError, ValueError):
            self.close()  # whoever talks like this is no peer of ours
            return False
        descriptors = [self._descriptors.popleft() for _ in range(count)]
        self._on_message(message, descriptors)
        return True
