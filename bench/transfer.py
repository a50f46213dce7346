#!/usr/bin/env python3
"""strait send and get beside cp -r, tar over plain TCP, scp and sendme, on this machine: wall and CPU seconds, in interleaved rounds.

    cargo build --release && bench/transfer.py target/release/strait [rounds] [MiB of the large file] [small files]

All of it happens in a temporary folder (TMPDIR) and over loopback. CPU seconds are those of all processes of a contender, both sides, user and
system. cp and tar do not hash, encrypt or sync what they write; strait does all three. `send` is the hashing before there is a ticket.

scp runs if there is an sshd, against one of its own with keys of its own, once as it comes and once with the cipher that strait uses. sendme
runs if it is in PATH or named in SENDME, without relays, and only where this script may move into a network namespace that has nothing but
loopback: then nothing can leave the machine, whatever a contender tries. KINDS=large or KINDS=small does one half.
"""
import os, resource, shutil, signal, socket, subprocess, sys, tempfile, threading, time

STRAIT = os.path.abspath(sys.argv[1])
ROUNDS, MIB, FILES = (int(arg) for arg in (sys.argv[2:] + ["3", "2048", "20000"][len(sys.argv) - 2 :]))
KINDS = os.environ.get("KINDS", "large small").split()
SSHD, SENDME = shutil.which("sshd", path="/usr/sbin:/usr/bin:" + os.environ["PATH"]), shutil.which(os.environ.get("SENDME", "sendme"))


def alone():
    """Moves into a network namespace with nothing but loopback; says whether that is where this runs."""
    if "STRAIT_ALONE" in os.environ:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return True
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    if subprocess.run([*unshare, "ip", "link", "set", "lo", "up"], stderr=subprocess.DEVNULL).returncode == 0:
        os.execvpe(unshare[0], [*unshare, sys.executable, *sys.argv], {**os.environ, "STRAIT_ALONE": "1"})
    return False


def make(top):
    os.makedirs(f"{top}/large"), os.makedirs(f"{top}/small")
    with open(f"{top}/large/file", "wb") as file:
        for _ in range(MIB if "large" in KINDS else 0):
            file.write(os.urandom(1 << 20))
    for number in range(FILES if "small" in KINDS else 0):
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


class Scp:
    """An sshd of our own on a free port of loopback, with keys of its own, for one copy."""

    def __init__(self, top, *options):
        self.options, self.keys = options, f"{top}/ssh"
        os.makedirs(self.keys, mode=0o700, exist_ok=True)
        for name in ("host", "user"):
            if not os.path.exists(f"{self.keys}/{name}"):
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.keys}/{name}"], check=True)
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # without it sshd does not start

    def __call__(self, source, target):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = [f"HostKey={self.keys}/host", f"AuthorizedKeysFile={self.keys}/user.pub", "PidFile=none", "UsePAM=no", "StrictModes=no"]
        settings += [f"ListenAddress=127.0.0.1:{port}", "PermitRootLogin=prohibit-password", "Subsystem=sftp internal-sftp"]
        args = ["-o", f"IdentityFile={self.keys}/user", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", *self.options]
        login = f"{os.environ.get('USER') or 'root'}@127.0.0.1"

        def work():
            server = subprocess.Popen([SSHD, "-D", "-f", "/dev/null", *(f"-o{each}" for each in settings)], stderr=subprocess.DEVNULL)
            while subprocess.run(["ssh-keyscan", "-p", str(port), "127.0.0.1"], capture_output=True).returncode:
                time.sleep(0.02)
            subprocess.run(["scp", "-q", "-r", "-F", "none", "-P", str(port), *args, source, f"{login}:{target}"], check=True, stderr=subprocess.DEVNULL)
            while children(server.pid):  # so that sshd, and then we, have waited for all of them
                time.sleep(0.01)
            server.terminate(), server.wait()

        return {" ".join(["scp", *(each.removeprefix("Ciphers=") for each in self.options if each != "-o")]): measure(work)}


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def sendme(source, target):
    os.makedirs(target)
    options = ["--relay", "disabled", "--no-progress"]

    def work():
        with tempfile.TemporaryDirectory(dir=os.path.dirname(target)) as store:
            args = [SENDME, "send", *options, "--ticket-type", "addresses", source]
            sender = subprocess.Popen(args, cwd=store, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            words = next(line.split() for line in sender.stdout if "receive" in line.split())
            ticket = words[words.index("receive") + 1]
            subprocess.run([SENDME, "receive", *options, ticket], cwd=target, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            sender.send_signal(signal.SIGINT), sender.wait()

    return {"sendme": measure(work)}


def main():
    by_itself = alone()
    with tempfile.TemporaryDirectory(prefix="strait-transfer-") as top:
        contenders = [strait, copy, tcp]
        if SSHD:
            contenders += [Scp(top), Scp(top, "-o", "Ciphers=aes128-gcm@openssh.com")]
        if SENDME and by_itself:
            contenders.append(sendme)
        make(top)
        for kind in KINDS:
            times = {}
            for _ in range(ROUNDS):
                for contender in contenders:
                    for name, figures in contender(f"{top}/{kind}", f"{top}/copy").items():
                        times.setdefault(name, []).append(figures)
                    compare = ["diff", "-rq", f"{top}/{kind}"]
                    there = f"{top}/copy/{kind}" if os.path.exists(f"{top}/copy/{kind}") else f"{top}/copy"
                    subprocess.run([*compare, there], check=True)
                    shutil.rmtree(f"{top}/copy")
                    os.sync()  # nobody pays for what the one before left unwritten
            base = sorted(cpu for _, cpu in times["cp -r"])[ROUNDS // 2]
            print(f"\n| {kind}: {MIB} MiB" if kind == "large" else f"\n| small: {FILES} x 4 KiB", "| wall s | CPU s | CPU to cp |\n|---|---|---|---|")
            for name, figures in times.items():
                wall, used = (sorted(each)[ROUNDS // 2] for each in zip(*figures))
                print(f"| {name} | {wall:.2f} | {used:.2f} | {used / base:.1f} |", flush=True)


main()
