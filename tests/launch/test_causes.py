"""What a log says becomes the category of the paper's table; what it does not say stays unknown."""

import pytest

from l3_platform.launch.causes import PAPER_COUNTS, Cause, classify

PEER = "RuntimeError: [gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:38311"
TRACEBACK = "Traceback (most recent call last):"
OF_TORCH = "[W1128 21:12:34.380464240 Utils.hpp:137] Warning: Environment variable is deprecated (function operator())"
FRAME = '  File "loop.py", line 223, in _step'


def torchrun_says(code: int) -> str:
    return f"E1121 17:09:07.345 31158 api.py:1002] failed (exitcode: {code}) local_rank: 0 (pid: 31188) of binary: python"


def test_the_counts_of_the_table_are_those_of_the_paper() -> None:
    assert sum(PAPER_COUNTS.values()) == 419
    assert PAPER_COUNTS[Cause.FAULTY_GPU] / 419 == pytest.approx(0.353, abs=5e-4)  # not the printed 30.1 %


@pytest.mark.parametrize(
    ("file", "line", "cause"),
    [
        ("kernel", "NVRM: Xid (PCI:0000:9b:00): 79, pid=1896, GPU has fallen off the bus.", Cause.FAULTY_GPU),
        ("kernel", "NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked for remapping", Cause.GPU_HBM3_MEMORY),
        ("kernel", "NVRM: Xid (PCI:0000:01:00): 94, pid=7194, Contained: CE User Channel (0x9). RST: No", Cause.GPU_HBM3_MEMORY),
        ("kernel", "NVRM: Xid (PCI:0000:01:00): 95, pid=7194, Uncontained: L2 SRAM (0x0). RST: Yes", Cause.GPU_SRAM),
        ("kernel", "NVRM: Xid (PCI:0000:18:00): 119, pid=2, Timeout after 6s of waiting for RPC response from GPU0 GSP!",
         Cause.GPU_SYSTEM_PROCESSOR),
        ("kernel", "NVRM: Xid (PCI:0000:18:00): 31, pid=2, Ch 00000008, MMU Fault: ENGINE GRAPHICS", Cause.SOFTWARE_BUG),
        ("rank", "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered", Cause.GPU_HBM3_MEMORY),
        ("kernel", "mlx5_core 0000:1a:00.0: mlx5_health_check: fatal error", Cause.NIC),
        ("kernel", "nvme0: I/O error timeout, completion polled", Cause.SSD),
        ("kernel", "mce: [Hardware Error]: CPU 12: Machine Check: 0 Bank 5", Cause.CPU),
        ("kernel", "EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0", Cause.SYSTEM_MEMORY),
        ("kernel", "pcieport 0000:00:01.0: PCIe Bus Error: severity=Uncorrected (Fatal)", Cause.IO_BOARD),
        ("rank", "OSError: [Errno 28] No space left on device: 'step-00000123.partial'", Cause.DEPENDENCY),
        ("rank", "[rank4]: [Rank 4] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, "
         "Timeout(ms)=600000) ran for 600067 milliseconds before timing out.", Cause.NCCL_WATCHDOG_TIMEOUT),
        ("rank", PEER, Cause.NETWORK),
        ("agent", "ssh: Could not resolve hostname a: Name or service not known", Cause.DEPENDENCY),
        ("agent", "l3@far-1: Permission denied (publickey,password).", Cause.DEPENDENCY),
        ("agent", "Host key verification failed.", Cause.DEPENDENCY),
        ("agent", "ssh: connect to host far-1 port 22: Connection refused", Cause.NETWORK),
        ("rank", "NCCL WARN NET/IB : Got completion with status 12 IBV_WC_RETRY_EXC_ERR error", Cause.NETWORK),
        ("slurm", "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-21T17:00:00 DUE TO TIME LIMIT ***", Cause.TIME_LIMIT),
        ("slurm", "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-21T17:00:00 DUE TO PREEMPTION ***", Cause.PREEMPTION),
        ("slurm", "slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-21T17:00:00 DUE TO NODE FAILURE ***",
         Cause.HOST_MAINTENANCE),
        ("srun", "srun: error: Node failure on n2", Cause.HOST_MAINTENANCE),
        ("scheduler", "Slurm job 12 reached its time limit, of 7-00:00:00", Cause.TIME_LIMIT),
    ],
)  # fmt: skip
def test_a_line_of_a_log_names_its_cause(file: str, line: str, cause: Cause) -> None:
    ordinary = "step      12  tokens         3,072  loss 4.1250  lr 1.20e-03  norm 0.913  9,771 tokens/s"
    found = classify({f"{file}-00000.log": [ordinary, line, ordinary]})
    assert found.cause is cause
    assert found.evidence.startswith(f"{file}-00000.log: ") and line[:40] in found.evidence
    assert found.cause.planned == (cause in (Cause.TIME_LIMIT, Cause.PREEMPTION))


def test_an_error_of_the_hardware_explains_what_the_ranks_then_say() -> None:
    logs = {
        "kernel-00001.log": ["NVRM: Xid (PCI:0000:9b:00): 79, GPU has fallen off the bus."],
        "rank-00000.log": [TRACEBACK, FRAME, PEER],
        "rank-00001.log": [TRACEBACK, FRAME, "RuntimeError: CUDA error: unknown error"],
    }
    assert classify(logs).cause is Cause.FAULTY_GPU


def test_a_traceback_is_a_software_bug_unless_it_only_tells_of_a_lost_connection() -> None:
    bug = "IndexError: index 70 is out of bounds for dimension 0 with size 64"
    found = classify({"rank-00000.log": [TRACEBACK, FRAME, PEER], "rank-00001.log": [TRACEBACK, FRAME, bug]})
    assert found.cause is Cause.SOFTWARE_BUG and found.evidence == f"rank-00001.log: {bug}"
    assert classify({"rank-00000.log": [TRACEBACK, FRAME, PEER]}).cause is Cause.NETWORK


def test_a_killed_rank_stays_unknown_although_the_others_lost_their_connections() -> None:
    found = classify({"agent-00001.log": [torchrun_says(-9)], "rank-00000.log": [TRACEBACK, FRAME, PEER]})
    assert found.cause is Cause.UNKNOWN
    assert found.evidence == "agent-00001.log: failed (exitcode: -9) local_rank: 0 (pid: 31188), SIGKILL"


def test_an_agent_that_ended_without_a_word_was_killed_and_is_no_fault_of_the_network() -> None:
    other = {"agent-00000.log": [torchrun_says(1)], "rank-00000.log": [TRACEBACK, FRAME, PEER]}
    found = classify(other | {"agent-00001.log": []})
    assert found.cause is Cause.UNKNOWN and found.evidence.startswith("agent-00001.log: the agent ended without a word")
    cut = classify(other | {"agent-00001.log": [torchrun_says(1)], "rank-00001.log": [TRACEBACK, FRAME, PEER]})
    assert cut.cause is Cause.NETWORK


def test_an_agent_that_says_anything_is_not_silent_but_a_warning_of_a_library_says_nothing() -> None:
    spoke = "this host has no network interface 'ib0' with an IPv4 address; it has eth0, lo"
    found = classify({"agent-00000.log": [spoke]}, "training was lost")
    assert found.evidence == f"training was lost; last line of agent-00000.log: {spoke}"
    warned = ["/site-packages/torch/cuda/__init__.py:61: FutureWarning: pynvml is deprecated", "  import pynvml", OF_TORCH]
    assert "without a word" in classify({"agent-00000.log": warned}).evidence


def test_a_warning_of_a_library_is_no_last_line() -> None:
    found = classify({"rank-00000.log": ["step 12"], "rank-00001.log": [OF_TORCH]}, "training was lost")
    assert found.evidence == "training was lost; last line of rank-00000.log: step 12"


def test_a_killed_rank_and_a_kernel_short_of_memory_belong_together() -> None:
    kernel = "Out of memory: Killed process 4711 (python) total-vm:81234kB, anon-rss:71234kB"
    assert classify({"agent-00000.log": [torchrun_says(-9)], "kernel-00000.log": [kernel]}).cause is Cause.HOST_OUT_OF_MEMORY
    assert classify({"agent-00000.log": [torchrun_says(1)], "kernel-00000.log": [kernel]}).cause is Cause.UNKNOWN


def test_a_segmentation_fault_is_a_bug() -> None:
    assert classify({"agent-00000.log": [torchrun_says(-11)]}).cause is Cause.SOFTWARE_BUG


def test_the_code_of_a_hung_rank_is_enough_where_its_dump_is_lost() -> None:
    assert classify({"agent-00000.log": [torchrun_says(86)]}).cause is Cause.NCCL_WATCHDOG_TIMEOUT


def test_what_nothing_explains_stays_unknown_with_the_last_line_said() -> None:
    found = classify({"rank-00000.log": ["step 12"]}, "training was lost (agent 0 ended with exit code 1)")
    assert found.cause is Cause.UNKNOWN
    assert found.evidence == "training was lost (agent 0 ended with exit code 1); last line of rank-00000.log: step 12"
    assert classify({}).evidence == "no logs"


def test_an_xid_that_only_follows_another_error_is_not_taken_for_a_cause() -> None:
    preempted = "NVRM: Xid (PCI:0000:01:00): 45, pid=7194, Ch 00000008"
    assert classify({"kernel-00000.log": [preempted]}).cause is Cause.UNKNOWN
