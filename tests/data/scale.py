"""Prints what a manifest costs: `python scale.py MANIFEST WORKERS` -> JSON of seconds, bytes and Python objects.

bytes: proportional set size of this process and all its workers together, after each has read records everywhere.
"""

import gc
import json
import os
import sys
import time

import torch

from tubelet.data.manifest import Manifest
from tubelet.data.sampler import TrainingBatches


class Records(torch.utils.data.Dataset):
    def __init__(self, manifest):
        self.manifest = manifest

    def __getitem__(self, slot):
        return os.getpid(), self.manifest.record(slot[1])


def proportional_set_size(pid):
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def main(path, workers):
    start = time.process_time()  # other processes of this machine do not count
    manifest = Manifest.read(path)
    seconds = time.process_time() - start
    batches = TrainingBatches(len(manifest), 10, seed=0)
    gc.collect()
    before = len(gc.get_objects())
    iterator = iter(batches)
    next(iterator)
    objects = len(gc.get_objects()) - before
    loader = torch.utils.data.DataLoader(
        Records(manifest), batch_sampler=batches, num_workers=workers, collate_fn=list, persistent_workers=True
    )
    pids = {os.getpid()}
    for number, batch in enumerate(loader):
        pids.update(pid for pid, _ in batch)
        if number == 100 or number + 1 == len(loader):
            total = sum(map(proportional_set_size, pids))
            break
    print(json.dumps({"seconds": seconds, "bytes": total, "objects": objects, "processes": len(pids)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
