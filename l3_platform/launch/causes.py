"""Why an attempt at training ended: the categories of Llama 3, table 5, by rules over exit codes, signals and log lines.

The rules stand in order of how directly they speak: a GPU that reports an error first, a connection that broke last, since
when one rank is lost, the connections of all others break. What no rule explains stays unknown, with the last line said.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from l3_platform.train.watchdog import EXIT_HUNG

Logs = Mapping[str, Sequence[str]]  # file name to its last lines


class Cause(StrEnum):
    FAULTY_GPU = "faulty GPU"
    GPU_HBM3_MEMORY = "GPU HBM3 memory"
    SOFTWARE_BUG = "software bug"
    NETWORK = "network switch or cable"
    HOST_MAINTENANCE = "host maintenance"
    GPU_SRAM = "GPU SRAM"
    GPU_SYSTEM_PROCESSOR = "GPU system processor"
    NIC = "NIC"
    NCCL_WATCHDOG_TIMEOUT = "NCCL watchdog timeout"
    SILENT_DATA_CORRUPTION = "silent data corruption"
    GPU_THERMAL_INTERFACE = "GPU thermal interface"
    SSD = "SSD"
    POWER_SUPPLY = "power supply"
    SERVER_CHASSIS = "server chassis"
    IO_BOARD = "IO expansion board"
    DEPENDENCY = "dependency"
    CPU = "CPU"
    SYSTEM_MEMORY = "system memory"
    # Not in the table: what a run of any size meets too.
    HOST_OUT_OF_MEMORY = "host out of memory"
    TRAINING_FAILED = "training failed"
    UNKNOWN = "unknown"
    # Planned: the paper counts 47 of 466.
    PREEMPTION = "preemption"
    TIME_LIMIT = "time limit"
    USERS_REQUEST = "user's request"

    @property
    def planned(self) -> bool:
        return self in (Cause.PREEMPTION, Cause.TIME_LIMIT, Cause.USERS_REQUEST)


# Unexpected interruptions of 54 days of 405B pre-training (Llama 3, table 5): 419. The counts; the printed shares are not theirs.
PAPER_COUNTS: dict[Cause, int] = {
    Cause.FAULTY_GPU: 148,
    Cause.GPU_HBM3_MEMORY: 72,
    Cause.SOFTWARE_BUG: 54,
    Cause.NETWORK: 35,
    Cause.HOST_MAINTENANCE: 32,
    Cause.GPU_SRAM: 19,
    Cause.GPU_SYSTEM_PROCESSOR: 17,
    Cause.NIC: 7,
    Cause.NCCL_WATCHDOG_TIMEOUT: 7,
    Cause.SILENT_DATA_CORRUPTION: 6,
    Cause.GPU_THERMAL_INTERFACE: 6,
    Cause.SSD: 3,
    Cause.POWER_SUPPLY: 3,
    Cause.SERVER_CHASSIS: 2,
    Cause.IO_BOARD: 2,
    Cause.DEPENDENCY: 2,
    Cause.CPU: 2,
    Cause.SYSTEM_MEMORY: 2,
}

# NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors), without those that only follow another error, such as 45 and 154.
_XID: dict[int, Cause] = {
    **dict.fromkeys((13, 31, 32, 43, 68, 69), Cause.SOFTWARE_BUG),  # illegal accesses and instructions of a kernel
    **dict.fromkeys((48, 63, 64, 92, 94, 95, 171), Cause.GPU_HBM3_MEMORY),  # uncorrectable ECC, row remapping
    **dict.fromkeys((158, 172), Cause.GPU_SRAM),
    **dict.fromkeys((61, 62, 119, 120, 122, 123), Cause.GPU_SYSTEM_PROCESSOR),  # PMU, GSP, SPI
    **dict.fromkeys((54,), Cause.POWER_SUPPLY),
    **dict.fromkeys((8, 38, 46, 74, 79, 109, 110, 140), Cause.FAULTY_GPU),  # off the bus, NVLink, stopped
}


@dataclass(frozen=True)
class Finding:
    cause: Cause
    evidence: str


def classify(logs: Logs, message: str = "") -> Finding:
    """The cause of an attempt's end, and the line that says so: `file: line`.

    `logs`: of the ranks, of their agents (torchrun), of the kernel and of the scheduler; a hang's dump begins with `hang-`.
    `message`: what the launcher said of the end.
    """
    if (found := explained(logs)) is not None:
        return found
    spoken = ((name, [line for line in lines if _speaks(line)]) for name, lines in sorted(logs.items(), reverse=True))
    last = next((f"last line of {name}: {lines[-1]}" for name, lines in spoken if lines), "")
    return Finding(Cause.UNKNOWN, _short("; ".join(filter(None, [message, last])) or "no logs"))


def explained(logs: Logs) -> Finding | None:
    """As `classify`; None where no rule knows a line."""
    rules = (
        of_scheduler, _xid, _hardware, _out_of_memory, _storage, _hang, _exception, of_ssh, _signal, _silent_agent, _network
    )  # fmt: skip
    return next((found for rule in rules if (found := rule(logs)) is not None), None)


def _rule(*patterns: tuple[str, Cause]) -> Callable[[Logs], Finding | None]:
    """The first pattern, in order, that any line matches."""
    compiled = [(re.compile(pattern, re.IGNORECASE), cause) for pattern, cause in patterns]

    def rule(logs: Logs) -> Finding | None:
        for pattern, cause in compiled:
            for name, line in _lines(logs):
                if pattern.search(line):
                    return Finding(cause, _short(f"{name}: {line}"))
        return None

    return rule


# What slurmstepd and srun print, what `batch.py` says for Slurm where they print nothing, and Kubernetes' reasons.
of_scheduler = _rule(
    (
        r"CANCELLED AT .* DUE TO PREEMPTION|Slurm job \d+ was preempted|preempted by|Preempting|TerminationByKubernetes.*preempt",
        Cause.PREEMPTION,
    ),
    (r"CANCELLED AT .* DUE TO TIME LIMIT|Slurm job \d+ reached its time limit|DeadlineExceeded", Cause.TIME_LIMIT),
    (
        r"DUE TO NODE FAILURE|srun: error: Node failure on|NodeShutdown|system is going down for|the host was restarted",
        Cause.HOST_MAINTENANCE,
    ),
)

_hardware = _rule(
    (r"uncorrectable.*SRAM|SRAM.*uncorrectable", Cause.GPU_SRAM),
    (r"uncorrectable ECC error|uncorrectable NVLink|row remapp(er|ing).*fail", Cause.GPU_HBM3_MEMORY),
    (r"silent data corruption", Cause.SILENT_DATA_CORRUPTION),
    (r"fallen off the bus|CUDA error: hardware stack error", Cause.FAULTY_GPU),
    (r"GSP (RPC )?timeout|GPU system processor", Cause.GPU_SYSTEM_PROCESSOR),
    (r"(GPU|HW).*thermal (slowdown|violation|shutdown)", Cause.GPU_THERMAL_INTERFACE),
    (r"\bCPU\d*.*Machine Check|mce: \[Hardware Error\].*CPU|microcode.*error", Cause.CPU),
    (r"EDAC .*\bUE\b|Memory failure: .*hardware|Uncorrected.*(DIMM|memory)", Cause.SYSTEM_MEMORY),
    (r"nvme\d?.*(timeout|I/O error|controller is down)|blk_update_request: I/O error|Buffer I/O error", Cause.SSD),
    (r"power supply.*(fail|lost)|PSU.*fail", Cause.POWER_SUPPLY),
    (r"\bfan ?\d*\b.*(failed|stopped)|chassis (intrusion|fault)", Cause.SERVER_CHASSIS),
    (r"pcieport.*(Fatal|uncorrected)|PCIe Bus Error: severity=Uncorrected", Cause.IO_BOARD),
    (r"mlx5.*(health|fatal|firmware).*(error|fail|compromised)|NIC Link is Down|mlx5.*Link down", Cause.NIC),
)


def _xid(logs: Logs) -> Finding | None:
    for name, line in _lines(logs):
        if found := re.search(r"NVRM: Xid \(.*?\): (\d+)", line):
            number = int(found[1])
            if number in _XID:
                on_chip = _XID[number] is Cause.GPU_HBM3_MEMORY and "SRAM" in line
                return Finding(Cause.GPU_SRAM if on_chip else _XID[number], _short(f"{name}: {line}"))
    return None


def _out_of_memory(logs: Logs) -> Finding | None:
    """The kernel killed a process for memory, and one of ours did end by SIGKILL: the kernel's log is of the whole machine."""
    said = r"Out of memory: Killed process|Memory cgroup out of memory|oom-kill:|OOMKilled|oom_kill event"
    found = _rule((said, Cause.HOST_OUT_OF_MEMORY))(logs)
    return found if found and any(code == -9 or code == 137 for _, code, _ in _exits(logs)) else None


_storage = _rule(
    (r"No space left on device|Disk quota exceeded", Cause.DEPENDENCY),
    (r"Stale file handle|Transport endpoint is not connected", Cause.DEPENDENCY),
)

_NETWORK_WORDS = (
    r"Connection closed by peer|Connection reset by peer|Connection refused|Connection timed out|No route to host|"
    r"Network is unreachable|Broken pipe|socketPollConnect|remote process exited or there was a network error|"
    r"IBV_WC_RETRY_EXC_ERR|NET/(IB|Socket).*(error|fail)|RendezvousConnectionError|failed to recv, got 0 bytes|SSL error|"
    r"DistNetworkError|Gloo connectFullMesh failed"
)
_network = _rule((_NETWORK_WORDS, Cause.NETWORK))


def _hang(logs: Logs) -> Finding | None:
    for name, lines in sorted(logs.items()):
        if name.startswith("hang-") and lines:
            return Finding(Cause.NCCL_WATCHDOG_TIMEOUT, _short(f"{name}: {lines[0]}"))
    for name, code, line in _exits(logs):
        if code == EXIT_HUNG:
            return Finding(Cause.NCCL_WATCHDOG_TIMEOUT, _short(f"{name}: {line}"))
    said = r"Watchdog caught collective operation timeout|Timed out waiting \d+ms for (recv|send) operation|NCCL.*timeout"
    return _rule((said, Cause.NCCL_WATCHDOG_TIMEOUT))(logs)


def _exception(logs: Logs) -> Finding | None:
    """The last line of a rank's traceback, unless it only tells that another rank is gone."""
    for name, lines in sorted(logs.items()):
        if not name.startswith("rank-"):
            continue
        inside = False
        for line in lines:
            if line.startswith("Traceback (most recent call last)"):
                inside = True
            elif inside and line and not line[0].isspace():
                inside = False
                if not re.search(_NETWORK_WORDS, line, re.IGNORECASE) and not line.startswith("KeyboardInterrupt"):
                    return Finding(Cause.SOFTWARE_BUG, _short(f"{name}: {line}"))
    return None


def _signal(logs: Logs) -> Finding | None:
    """A process that a signal ended. Segmentation faults and their like are bugs; a SIGKILL may be anybody's."""
    for name, code, line in _exits(logs):
        if code in (-4, -6, -8, -11):
            return Finding(Cause.SOFTWARE_BUG, _short(f"{name}: {line}"))
        if code < 0 and code != -15:
            return Finding(Cause.UNKNOWN, _short(f"{name}: {line}"))
    return None


def of_ssh(logs: Logs) -> Finding | None:
    """What the ssh that stands for an agent says of a host to which it did not come."""
    return _SSH({name: lines for name, lines in logs.items() if name.startswith("agent-")})


def refused_by_ssh(logs: Logs) -> str:
    """The line, where ssh would say the same again at once: a name, a key or a login is wrong. Empty where any rank has started."""
    found = None if any(name.startswith("rank-") for name in logs) else of_ssh(logs)
    return found.evidence if found and found.cause is Cause.DEPENDENCY else ""


_SSH = _rule(
    (r": Could not resolve hostname |^Host key verification failed|: Permission denied \(.*\)\.?$", Cause.DEPENDENCY),
    (r"^ssh: connect to host \S+ port \d+: ", Cause.NETWORK),
)


def _silent_agent(logs: Logs) -> Finding | None:
    """torchrun reports whatever ends its ranks, and its own stop: an agent that says nothing was killed, and its ranks with it."""
    agents = {name: lines for name, lines in sorted(logs.items()) if name.startswith("agent-")}
    silent = [name for name, lines in agents.items() if not any(map(_speaks, lines))]
    return Finding(Cause.UNKNOWN, f"{silent[0]}: the agent ended without a word, as one that is killed does") if silent else None


def _speaks(line: str) -> bool:
    """Whether a line may say something of an end: not the warnings of libraries, which come at the start of any process, nor the
    source lines below them."""
    if re.search(r"death signal|closing signal|Rendezvous", line):  # which torchrun calls warnings
        return True
    return bool(line.strip()) and not line[0].isspace() and not re.search(r"^\[?W\d{4} |\]:\[W\d{4} |Warning: ", line)


def _exits(logs: Logs) -> Iterator[tuple[str, int, str]]:
    """(file, exit code, what torchrun says) of each rank whose end it reports."""
    for name, line in _lines(logs):
        if found := re.search(r"failed \(exitcode: (-?\d+)\).*\(pid: \d+\)", line):
            code = int(found[1])
            by = f", {signal.Signals(-code).name}" if -code in set(signal.Signals) else ""
            yield name, code, found[0] + by


def _lines(logs: Logs) -> Iterator[tuple[str, str]]:
    return ((name, line) for name, lines in sorted(logs.items()) for line in lines)


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
