"""`--devices N`: the same command in N processes of this machine, by torch's own launcher.

On several machines torchrun starts the processes itself: docs/scale.md.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from vitral.errors import MachineError, UsageError

INTERRUPTED = 130
PATIENCE = "1800"  # seconds for the last step and its state after Ctrl-C; torch's own 30 are few
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # torch's handlers stay


def launched() -> bool:
    """Return whether this process is one of several that a launcher started."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(processes: int, words: Sequence[str], *, device: str | None = None) -> int:
    """Run `vitral WORDS` in that many processes; returns the exit code of the first that failed.

    Raises UsageError for less than one process, MachineError for more than there are GPUs.
    """
    if processes < 1:
        raise UsageError(f"--devices is the number of processes, from 1, not {processes}.")
    gpus = torch.cuda.device_count() if device is None or device.startswith("cuda") else 0
    if gpus and processes > gpus:
        raise MachineError(f"--devices asks for {processes} GPUs and there are {gpus}.")
    # A restart in place would meet the addresses of the processes before it in the shared store
    # (pytorch issue 135712).
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if not gpus:  # otherwise each process takes one core, however many there are
        threads = max(1, torch.get_num_threads() // processes)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", PATIENCE)
    logging.disable(logging.ERROR)  # the processes have said in a sentence what torch repeats
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        _stop_at_second_interrupt()
        elastic_launch(config, sys.executable)("-m", "vitral", *words)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 1
    except SignalException:
        return INTERRUPTED
    finally:
        signal.set_wakeup_fd(-1)
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def _stop_at_second_interrupt() -> None:
    """Ctrl-C a second time ends the launcher at once, and with it its processes.

    torch's own handler would wait for them again. The number of a signal arrives at this end of
    the wire whatever handler there is.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        interrupts = 0
        while interrupts < 2:
            interrupts += receiver.recv(16).count(signal.SIGINT)
        sender.close()
        os.write(2, b"vitral: Stopped at once.\n")
        os._exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()
