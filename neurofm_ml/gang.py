"""Several processes that work on one job: torchrun with the exit codes of our jobs, and what the first process tells the others.

``python -m neurofm_ml.gang [options of torchrun] -m module arguments`` starts one process per GPU, here or on
several nodes. torchrun itself ends with 1 whatever its processes ended with, and kills them 30 s after a SIGTERM;
this keeps the code of the process that failed first and leaves them the time to write a checkpoint.
"""

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from neurofm_ml.types import EXIT_PREEMPTED

if TYPE_CHECKING:
    from torch.distributed import TCPStore

#: Seconds that processes have between SIGTERM and SIGKILL.
GRACE_S = 100
_POLL_S = 0.1


def rank() -> int:
    """Number of this process in its gang; 0 for the first, and where there is no gang."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Number of processes in the gang; 1 where there is none."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def tell(what: str, message: Any) -> None:
    """Say something to all other processes of the gang, as JSON; nobody listens where there is none."""
    if world() > 1:
        _store().set(f"neurofm/{what}", json.dumps(message))


def hear(what: str) -> Any:
    """What the first process told about `what`, waited for."""
    store, key = _store(), f"neurofm/{what}"
    while not store.check([key]):  # its own way of waiting is deaf to SIGTERM
        time.sleep(_POLL_S)
    return json.loads(store.get(key))


def meet(where: str) -> None:
    """Wait until every process of the gang has come here."""
    tell(f"{where}/{rank()}", None)
    if world() > 1:
        for other in range(world()):
            hear(f"{where}/{other}")


def _store() -> "TCPStore":
    """The gang's board of messages, which torchrun keeps."""
    from torch.distributed import TCPStore

    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def main(argv: list[str]) -> int:
    """Run torchrun; gives the exit code of the process that failed first, and "preempted" when it was asked to stop itself."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(["--max-restarts=0", f"--shutdown-timeout={GRACE_S}", *argv]))
    except SignalException as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_PREEMPTED
    except ChildFailedError as failed:
        first, failure = failed.get_first_failure()
        print(f"process {first} of the gang ended with exit code {failure.exitcode}", file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
