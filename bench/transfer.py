#!/usr/bin/env python3
"""strait send and get beside cp -r and tar over plain TCP, on this machine: wall and CPU seconds, in interleaved rounds.

    cargo build --release && bench/transfer.py target/release/strait [rounds] [MiB of the large file] [small files]

All of it happens in a temporary folder (TMPDIR) and over loopback. CPU seconds are those of all processes of a contender, both sides, user and
system. cp and tar do not hash, encrypt or sync what they write; strait does all three. `send` is the hashing before there is a ticket.
"""
import os, resource, shutil, socket, subprocess, sys, tempfile, threading, time

STRAIT = os.path.abspath(sys.argv[1])
ROUNDS, MIB, FILES = (int(arg) for arg in (sys.argv[2:] + ["3", "2048", "20000"][len(sys.argv) - 2 :]))


def make(top):
    os.makedirs(f"{top}/large"), os.makedirs(f"{top}/small")
    with open(f"{top}/large/file", "wb") as file:
        for _ in range(MIB):
            file.write(os.urandom(1 << 20))
    for number in range(FILES):
        os.makedirs(f"{top}/small/{number // 1000}", exist_ok=True)
        with open(f"{top}/small/{number // 1000}/{number}", "wb") as file:
            file.write(os.urandom(4096))


def cpu():
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def measure(work):
    """Wall and CPU seconds of what `work` does and waits for."""
    wall, before = time.monotonic(), cpu()
    work()
    return time.monotonic() - wall, cpu() - before


def copy(source, target):
    return {"cp -r": measure(lambda: subprocess.run(["cp", "-r", source, target], check=True))}


def tcp(source, target):
    """tar | socket | tar, with nothing but read and write in between."""

    def pump(read, write):
        while piece := read(1 << 20):
            write(piece)

    def send(listener):
        out = subprocess.Popen(["tar", "c", "-C", source, "."], stdout=subprocess.PIPE)
        connection = listener.accept()[0]
        pump(out.stdout.read1, connection.sendall)
        connection.close(), out.stdout.close(), out.wait()

    def work():
        listener = socket.create_server(("127.0.0.1", 0))
        sender = threading.Thread(target=send, args=[listener])
        sender.start()
        into = subprocess.Popen(["tar", "x", "-C", target], stdin=subprocess.PIPE)
        pump(socket.create_connection(listener.getsockname()).recv, into.stdin.write)
        into.stdin.close(), into.wait(), sender.join()

    os.makedirs(target)
    return {"tar over TCP": measure(work)}


def strait(source, target):
    began, before = time.monotonic(), cpu()
    args = [STRAIT, "send", "--ephemeral", "--listen", "127.0.0.1:0", "--once", "-q", source]
    sender = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    ticket = sender.stdout.readline().strip()
    with open(f"/proc/{sender.pid}/stat") as stat:
        hashing = sum(int(ticks) for ticks in stat.read().rsplit(")", 1)[1].split()[11:13]) / os.sysconf("SC_CLK_TCK")
    hashed = time.monotonic() - began
    subprocess.run([STRAIT, "get", "-q", "-o", target, ticket], check=True)
    sender.wait()
    wall, used = time.monotonic() - began, cpu() - before
    return {"strait send": (hashed, hashing), "strait get": (wall - hashed, used - hashing), "strait, both": (wall, used)}


def main():
    with tempfile.TemporaryDirectory(prefix="strait-transfer-") as top:
        make(top)
        for kind in ("large", "small"):
            times = {}
            for _ in range(ROUNDS):
                for contender in (strait, copy, tcp):
                    for name, figures in contender(f"{top}/{kind}", f"{top}/copy").items():
                        times.setdefault(name, []).append(figures)
                    shutil.rmtree(f"{top}/copy")
                    os.sync()  # nobody pays for what the one before left unwritten
            base = sorted(cpu for _, cpu in times["cp -r"])[ROUNDS // 2]
            print(f"\n| {kind}: {MIB} MiB" if kind == "large" else f"\n| small: {FILES} x 4 KiB", "| wall s | CPU s | CPU to cp |\n|---|---|---|---|")
            for name, figures in times.items():
                wall, used = (sorted(each)[ROUNDS // 2] for each in zip(*figures))
                print(f"| {name} | {wall:.2f} | {used:.2f} | {used / base:.1f} |", flush=True)


main()
