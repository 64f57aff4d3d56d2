"""A line between two bridges: takes every frame at one end and gives it out at the other end so much later.

Runs in the namespace of the switch. The first argument, and each line on standard input, is the delay one way in
milliseconds. Ends with its standard input.
"""

import collections
import fcntl
import os
import select
import struct
import sys
import time

ENDS = ("line-near", "line-far")
# TUNSETIFF, and IFF_TAP | IFF_NO_PI.
MAKE, WHOLE_FRAMES = 0x400454CA, 0x1002
FRAME_BYTES_MAX = 65_536
# Frames on their way in one direction; what is more is lost, as on any line.
HELD_MAX = 4_000
# Frames taken in at once, so that those that are due do not wait behind a flood.
TAKEN_MAX = 64


def end(name):
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, MAKE, struct.pack("16sH22x", name.encode(), WHOLE_FRAMES))
    return file


def take(file, held, delay):
    for _ in range(TAKEN_MAX):
        try:
            frame = os.read(file, FRAME_BYTES_MAX)
        except BlockingIOError:
            return
        if len(held) < HELD_MAX:
            # In order also when the delay was made shorter meanwhile.
            held.append((max(time.monotonic() + delay, held[-1][0] if held else 0), frame))


def give(file, held):
    while held and held[0][0] <= time.monotonic():
        try:
            os.write(file, held.popleft()[1])
        except OSError:
            # The end is down, or full: the frame is lost.
            pass


def main():
    ends, ways, delay = [end(name) for name in ENDS], [collections.deque(), collections.deque()], float(sys.argv[1]) / 1000
    rest = b""
    print("ready", flush=True)
    while True:
        due = min((held[0][0] for held in ways if held), default=None)
        wait = None if due is None else max(0, due - time.monotonic())
        ready = select.select([0, *ends], [], [], wait)[0]
        if 0 in ready:
            came = os.read(0, 4_096)
            if not came:
                return
            # A line may come in pieces.
            *lines, rest = (rest + came).split(b"\n")
            if lines:
                delay = float(lines[-1]) / 1000
        for here, there in ((0, 1), (1, 0)):
            if ends[here] in ready:
                take(ends[here], ways[here], delay)
            give(ends[there], ways[here])


main()
